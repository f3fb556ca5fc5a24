"""What is in the model repository, whether or not Triton has loaded it."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format  # type: ignore[import-untyped]

from doctor.findings import EXPORT, Finding
from export import declared
from export.contract import Graph, breaches
from export.errors import ExportError


def models(repository: Path) -> list[str]:
    """Names of the models of which a version is there."""
    return sorted({path.parts[-3] for path in repository.glob("*/*/model.*") if path.parent.name.isdecimal()})


def examine(repository: Path, name: str) -> list[Finding]:
    """Whether NVIDIA's backend takes the newest version of a model; nothing for a model that is not there."""
    folder, title = repository / name, "contract"
    if not (folder / "config.pbtxt").is_file():
        return []
    again = f"`{EXPORT} MODEL={name}` (WEIGHTS= for one of your own) writes config and graph anew."
    try:
        config = declared.as_json((folder / "config.pbtxt").read_text())
        graph = newest_graph(folder)
    except text_format.ParseError as error:
        what = f"{folder / 'config.pbtxt'} cannot be read: {' '.join(str(error).split())}"
        return [wrong(title, what, "Triton loads no model without it.", again)]
    except (OSError, UnicodeDecodeError, ExportError) as error:
        return [wrong(title, f"{name} cannot be read: {error}", "Nor can Triton read it.", again)]
    broken = breaches({"name": name, **config}, graph)
    if not broken:
        held = "what NVIDIA's ONNX Runtime backend asks" if graph else "an engine: its own backend says at the load"
        return [Finding(level="ok" if graph else "info", title=title, what=held)]
    return [
        wrong(title, breach.words, "Triton refuses to load it.", again)
        if breach.refused
        else Finding(level="note", title=title, what=breach.words, why="Triton ignores it silently.", change=again)
        for breach in broken
    ]


def newest_graph(folder: Path) -> Graph | None:
    """What the ONNX file of the newest version declares; None where there is none."""
    versions = [path for path in folder.iterdir() if path.name.isdecimal() and (path / "model.onnx").is_file()]
    if not versions:
        return None
    return declared.graph(max(versions, key=lambda path: int(path.name)) / "model.onnx")


def wrong(title: str, what: str, why: str, change: str) -> Finding:
    return Finding(level="wrong", title=title, what=what, why=why, change=change)
