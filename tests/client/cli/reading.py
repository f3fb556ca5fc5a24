"""What the libraries of annotation tools read in a folder: `python reading.py READER FOLDER`, JSON on standard output.

It runs in the environment of that library. Each reader gives
{image name: [[label, x, y, width, height], …]} with boxes in pixels.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Boxes = dict[str, list[list[Any]]]


def datumaro_coco(folder: Path) -> Boxes:
    """CVAT's COCO reader."""
    return _datumaro(folder, "coco")


def datumaro_yolo(folder: Path) -> Boxes:
    """CVAT's YOLO reader."""
    return _datumaro(folder, "yolo")


def _datumaro(folder: Path, form: str) -> Boxes:
    from datumaro import Dataset

    dataset = Dataset.import_from(str(folder), form)
    labels = [each.name for each in next(iter(dataset.categories().values()))]
    return {item.id: [[labels[found.label], *found.get_bbox()] for found in item.annotations] for item in dataset}


def label_studio_coco(folder: Path) -> Boxes:
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    tasks = folder / "tasks.json"
    convert_coco_to_ls(str(folder / "annotations" / "instances_default.json"), str(tasks), image_root_url="/")
    return _label_studio(tasks)


def label_studio_yolo(folder: Path) -> Boxes:
    from label_studio_sdk.converter.imports.yolo import convert_yolo_to_ls

    tasks = folder / "tasks.json"
    convert_yolo_to_ls(str(folder), str(tasks), image_root_url="/")
    return _label_studio(tasks)


def _label_studio(tasks: Path) -> Boxes:
    """Label Studio keeps percentages; its YOLO converter notes the size without EXIF, but shows the image upright."""
    found: Boxes = {}
    for task in json.loads(tasks.read_text()):
        name = unquote(task["data"]["image"]).lstrip("/")
        scale = [side / 100 for side in _upright(tasks.parent / "images" / name) * 2]
        for each in task["annotations"][0]["result"]:
            box = [each["value"][side] for side in ("x", "y", "width", "height")]
            label = each["value"]["rectanglelabels"][0]
            found.setdefault(name, []).append([label, *(a * b for a, b in zip(box, scale))])  # noqa: B905
        found.setdefault(name, [])
    return found


def _upright(path: str | Path) -> tuple[int, int]:
    from PIL import Image, ImageOps

    width, height = ImageOps.exif_transpose(Image.open(path)).size
    return width, height


def ultralytics_yolo(folder: Path) -> Boxes:
    """What YOLOv5 and its successors train on."""
    from demo.train_shapes import let_ultralytics_do_without_torchvision

    let_ultralytics_do_without_torchvision()
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    found: Boxes = {}
    for path in sorted(Path(data["train"]).iterdir()):
        labels = img2label_paths([str(path)])[0]
        _, rows, size_hw, *_, problem = verify_image_label((str(path), labels, "", False, data["nc"], 0, 0, False))
        assert not problem, problem
        height, width = size_hw
        boxes = [(data["names"][int(row[0])], *(row[1:] * (width, height, width, height)).tolist()) for row in rows]
        found[path.name] = [[name, x - w / 2, y - h / 2, w, h] for name, x, y, w, h in boxes]
    return found


def fiftyone_coco(folder: Path) -> Boxes:
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    labels = folder / "annotations" / "instances_default.json"
    importer = COCODetectionDatasetImporter(
        data_path=str(folder / "images"), labels_path=str(labels), label_types=["detections"]
    )
    importer.setup()
    found: Boxes = {}
    for path, metadata, label in importer:
        found[_under(path, folder)] = _fiftyone(label, metadata.width, metadata.height)
    return found


def fiftyone_yolo(folder: Path) -> Boxes:
    from fiftyone.utils.yolo import YOLOv5DatasetImporter

    importer = YOLOv5DatasetImporter(str(folder), yaml_path="data.yaml")
    importer.setup()
    found: Boxes = {}
    for path, _, label in importer:
        found[_under(path, folder)] = _fiftyone(label, *_upright(path))
    return found


def _fiftyone(label: Any, width: int, height: int) -> list[list[Any]]:
    boxes = [] if label is None else label.detections
    scale = width, height, width, height
    return [[each.label, *(a * b for a, b in zip(each.bounding_box, scale))] for each in boxes]  # noqa: B905


def _under(path: str, folder: Path) -> str:
    return Path(path).resolve().relative_to((folder / "images").resolve()).as_posix()


READERS: dict[str, Callable[[Path], Boxes]] = {
    reader.__name__: reader
    for reader in (
        *(datumaro_coco, datumaro_yolo, label_studio_coco, label_studio_yolo, fiftyone_coco, fiftyone_yolo),
        ultralytics_yolo,
    )
}

if __name__ == "__main__":
    boxes = READERS[sys.argv[1]](Path(sys.argv[2]))
    print("\n" + json.dumps(boxes))
