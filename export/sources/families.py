"""Which model a checkpoint holds, from the names of the classes that it needs and this project lacks."""

from pathlib import Path

from export.errors import ExportError

# The last part of a class's name → what such a model does. The first that is found counts.
TASKS = {
    "segmentation": ("Segment", "Segment26", "SegmentationModel", "YOLOESegment", "YOLOESegment26", "Proto"),
    "semantic segmentation": ("SemanticSegment", "SemanticSegmentationModel"),
    "pose": ("Pose", "Pose26", "PoseModel", "IKeypoint"),
    "oriented boxes": ("OBB", "OBB26", "OBBModel"),
    "classification": ("Classify", "ClassificationModel"),
    "depth": ("Depth", "DepthModel"),
}
END_TO_END = ("RT-DETR", "YOLOv10", "YOLO26")  # their own answers need no NMS, and are no table of candidates
FAMILIES = {
    "RT-DETR": ("RTDETRDecoder", "RTDETRDetectionModel", "HGBlock", "AIFI"),
    "YOLO-World": ("WorldDetect", "WorldModel", "C2fAttn", "ImagePoolingAttn"),
    "YOLOE": ("YOLOEDetect", "YOLOESegment", "YOLOEModel", "YOLOESegModel", "LRPCHead"),
    "YOLO26": ("Segment26", "Pose26", "OBB26", "Proto26"),
    "YOLOv10": ("v10Detect", "SCDown", "C2fCIB", "PSA"),
    "YOLO12": ("A2C2f",),
    "YOLO11": ("C3k2", "C2PSA"),
    "YOLOv9": (
        *("RepNCSPELAN4", "ADown", "AConv", "SPPELAN", "ELAN1", "CBLinear", "CBFuse"),
        *("DDetect", "DualDDetect", "TripleDDetect", "DualDetect", "TripleDetect", "Silence"),
    ),
    "YOLOv7": ("IDetect", "IAuxDetect", "IBin", "SPPCSPC", "MP", "RepConv", "ReOrg", "ImplicitA", "ImplicitM"),
    "YOLO-NAS": ("YoloNAS",),
    "YOLOv8": ("C2f",),
}
PACKAGES = {"yolov6": "YOLOv6", "yolox": "YOLOX", "ppyoloe": "PP-YOLOE", "torchvision": "torchvision"}
FILES = {
    **{"rtdetr": "RT-DETR", "rt-detr": "RT-DETR", "yoloe": "YOLOE", "world": "YOLO-World"},
    **{f"yolov{i}": f"YOLOv{i}" for i in (10, 3, 4, 6, 7, 8, 9)},
    **{f"yolo{i}": f"YOLO{i}" for i in (11, 12, 13, 26)},
}


def refusal(path: Path, names: list[str], file: str = "") -> ExportError:
    """Why a model that needs the classes `names` is not served. `file` is the yaml that it was made from, or empty."""
    leaves = {name.rpartition(".")[2] for name in names}
    task = next((task for task, marks in TASKS.items() if leaves & set(marks)), None)
    family = _family(names, leaves, file)
    if task is not None:
        return ExportError(
            f"{path} is a {family + ' ' if family else ''}{task} model, and only detection is served; "
            "give a YOLOv5 detection checkpoint"
        )
    if family in END_TO_END:
        return ExportError(
            f"{path} is {_article(family)} checkpoint, whose answers are not decoded as YOLOv5's; give a YOLOv5 one"
        )
    if family is not None and any(name.startswith("ultralytics.") for name in names):
        return ExportError(
            f"{path} is {_article(family)} checkpoint; export it to ONNX with ultralytics, which is taken"
        )
    if family is not None:
        return ExportError(f"{path} is {_article(family)} checkpoint; give an .onnx made of it where it was trained")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ExportError(
        f"{path} is refused: it needs {', '.join(names[:3])}{more}, which is no part of YOLOv5; "
        "give a YOLOv5 checkpoint, or an .onnx made of it where it was trained"
    )


def _family(names: list[str], leaves: set[str], file: str) -> str | None:
    """The file's name comes first: families share layers. A file of YOLOv5's name with other layers says nothing."""
    if any(name.startswith("ultralytics.") for name in names):
        for mark, family in FILES.items():
            if mark in file.lower():
                return family
    for package, family in PACKAGES.items():
        if any(name.startswith(f"{package}.") for name in names):
            return family
    return next((family for family, marks in FAMILIES.items() if leaves & set(marks)), None)


def _article(family: str) -> str:
    return f"an {family}" if family.startswith("RT") else f"a {family}"
