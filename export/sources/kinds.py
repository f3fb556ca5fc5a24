"""What a file or folder is that is no checkpoint: each said by its true name, and what to give instead."""

import re
import zipfile
import zlib
from pathlib import Path

CHECKPOINT = "give the .pt that training wrote"
OR_ONNX = f"{CHECKPOINT}, or an .onnx made of it"

ENGINE = f"a TensorRT engine; {OR_ONNX}: the engine is built from that"
AGAIN = "download or copy it again"
ARCHIVE = "unpack it and give the .pt in it"

# How a file begins → what it is. The first that fits.
MAGIC: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (rb"\s*<(!doctype html|!DOCTYPE html|!DOCTYPE HTML|html|HTML)", f"an HTML page; download the file, {CHECKPOINT}"),
    (rb"<\?xml.{0,400}?<net\b|<net\b", f"an OpenVINO model; {OR_ONNX}"),
    (rb'ftrt|.{4}\{"', ENGINE),
    (rb".{4}TFL3", f"a TFLite model; {OR_ONNX}"),
    (rb'.{8}\{"[^\0]*"dtype"', f"a safetensors file: weights without the model they belong to; {CHECKPOINT}"),
    (rb"\x89HDF\r\n", f"an HDF5 file, as Keras writes; {OR_ONNX}"),
    (rb"\x93NUMPY", f"a NumPy array; {CHECKPOINT}"),
    (rb"7767517", f"an ncnn model; {OR_ONNX}"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", f"a compressed archive; {ARCHIVE}"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF", f"a picture or film, not a model; {CHECKPOINT}"),
    (rb"%PDF", f"a PDF document, not a model; {CHECKPOINT}"),
)
# A protobuf that begins with a version, then a producer's name, a graph or an operator set.
ONNX = rb"\x08[\x03-\x20](\x12[\x01-\x20]|:|B)"
ONNX_FILE = f"an ONNX file, not a checkpoint; {CHECKPOINT}"
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of a checkpoint before PyTorch 1.6
# What only the name tells: these formats have no mark of their own.
SUFFIXES = {
    ".engine": ENGINE,
    ".plan": ENGINE,
    ".trt": ENGINE,
    ".mlmodel": f"a CoreML model; {OR_ONNX}",
    ".pb": f"a TensorFlow graph; {OR_ONNX}",
    ".pdmodel": f"a PaddlePaddle model; {OR_ONNX}",
    ".pdiparams": f"a PaddlePaddle model's weights; {OR_ONNX}",
    ".mnn": f"an MNN model; {OR_ONNX}",
    ".rknn": f"an RKNN model; {OR_ONNX}",
    ".weights": f"a Darknet file: weights without the model they belong to; {CHECKPOINT}",
}
# A file in a folder → what the folder is.
FOLDERS = {
    "saved_model.pb": "a TensorFlow SavedModel",
    "*.xml": "an OpenVINO model",
    "*.ncnn.param": "an ncnn model",
    "Manifest.json": "a CoreML package",
    "*.pdmodel": "a PaddlePaddle model",
    "data.pkl": "an unpacked checkpoint",
    "config.pbtxt": "a model of Triton's repository",
}


def of_file(path: Path) -> str | None:
    """What the file is and what to do, when it is surely no checkpoint; None when it may be one. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(8192)
    if not start:
        return f"an empty file, no PyTorch checkpoint; {AGAIN}"
    if start[257:262] == b"ustar":
        return f"a tar archive, not a checkpoint; {ARCHIVE}"
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    what = next((what for pattern, what in MAGIC if re.match(pattern, start, re.DOTALL)), None)
    if what is not None:
        return what
    if path.suffix.lower() in SUFFIXES and not start.startswith(b"\x80"):
        return SUFFIXES[path.suffix.lower()]
    if re.match(ONNX, start, re.DOTALL):
        return ONNX_FILE
    if start.startswith(b"PK\3\4"):
        return f"damaged: its end is missing; {AGAIN}"
    if start.startswith(b"\x80") and not start.startswith(OLD_FORMAT):
        return f"a pickle, but no PyTorch checkpoint; {CHECKPOINT}"
    if _is_text(start):
        return f"a text file, no PyTorch checkpoint; {CHECKPOINT}"
    return None


def is_onnx(path: Path) -> bool:
    """Whether a file is read as ONNX: by its content, and by its name where it is no checkpoint. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(8192)
    if path.suffix.lower() == ".onnx":
        return not start.startswith((b"PK\3\4", OLD_FORMAT))
    return re.match(ONNX, start, re.DOTALL) is not None and of_file(path) == ONNX_FILE


def of_folder(path: Path) -> str:
    """What a folder given as weights is, and what to do. Raises OSError."""
    what = next((what for pattern, what in FOLDERS.items() if any(path.glob(pattern))), None)
    inside = next(iter(sorted(path.glob("weights/*.pt")) + sorted(path.glob("*.pt"))), None)
    instead = f"give the file, such as {inside}" if inside is not None else OR_ONNX
    return f"{what or 'a folder'}; {instead}"


def _of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            corrupted = archive.testzip() if any(name.endswith("data.pkl") for name in names) else None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"a zip archive that cannot be read ({error}); {AGAIN}"
    if corrupted is not None:  # PyTorch itself does not look at the checksums
        return f"damaged: {corrupted} in it is not what was written; {AGAIN}"
    last = {name.rpartition("/")[2] for name in names}
    if any("Manifest.json" in name or ".mlpackage" in name for name in names):
        return f"a CoreML package in a zip archive; {OR_ONNX}"
    if "constants.pkl" in last and "data.pkl" in last:
        return f"a TorchScript file, which has lost what an export needs; {OR_ONNX}"
    if "data.pkl" in last:
        return None
    if any(name.endswith((".pt", ".pth")) for name in names):
        return f"a zip archive; {ARCHIVE}"
    return f"a zip archive with no PyTorch checkpoint in it; {CHECKPOINT}"


def _is_text(start: bytes) -> bool:
    try:
        text = start[:-3].decode() if len(start) == 8192 else start.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f\ufeff" for character in text)
