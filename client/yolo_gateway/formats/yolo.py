"""YOLO: a text file an image, and the names of the classes in the two forms that readers look for."""

from pathlib import PurePosixPath

from yolo_gateway.formats.picture import Model, Picture


def label_name(name: str) -> str:
    """The label file of an image: its name with .txt, `a/b.jpg` → `a/b.txt`."""
    return str(PurePosixPath(name).with_suffix(".txt"))


def label_file(picture: Picture) -> str:
    """A line an object, best first: class id, then centre x, centre y, width, height as fractions of the image.

    Without scores, so that it can be trained on: YOLOv5's loader takes exactly five columns.
    """
    lines = []
    for found in picture.detections:
        box = found.box
        columns = (
            (box.x1 + box.x2) / 2 / picture.width,
            (box.y1 + box.y2) / 2 / picture.height,
            (box.x2 - box.x1) / picture.width,
            (box.y2 - box.y1) / picture.height,
        )
        lines.append(f"{found.class_id} " + " ".join(f"{column:.6f}" for column in columns) + "\n")
    return "".join(lines)


def classes(model: Model) -> str:
    """`classes.txt`: a label a line, that of class id 0 first. A line break in a label becomes a space."""
    return "".join(" ".join(label.splitlines()) + "\n" for label in model.labels)


def data_yaml(model: Model) -> str:
    """`data.yaml`: the classes, and `images` next to it as the folder of the images."""
    names = "".join(f"  {index}: {_quoted(label)}\n" for index, label in enumerate(model.labels))
    return f"train: images\nval: images\nnames:\n{names}"


def _quoted(text: str) -> str:
    """A double-quoted scalar of YAML."""
    plain = (char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text)
    return f'"{"".join(plain)}"'
