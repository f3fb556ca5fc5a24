"""What is in the model repository, whether or not Triton has loaded it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import onnx
from google.protobuf import text_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from doctor.findings import EXPORT, Finding
from export import declared, facts, versions
from export.contract import breaches
from export.repository import numbered
from gateway.triton.loading import CANDIDATE

FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}  # by backend


def models(repository: Path) -> list[str]:
    """Names of the models of which a version is there."""
    return sorted({path.parts[-2] for path in repository.glob("*/*") if path.name.isdecimal() and path.is_dir()})


def examine(repository: Path, name: str) -> list[Finding]:
    """Whether Triton can load the version in use of a model, and whether its parts fit together."""
    folder = repository / name
    if numbered(folder):
        return list(_examined(folder))
    if folder.is_dir():
        what = f"{folder} has no folder of a version: 1, 2, …"
        return [wrong("version", what, "Triton loads a model from such a folder alone.", again(folder))]
    return [gone(repository, name)]


def another_version(repository: Path, name: str, served: str) -> list[Finding]:
    """Whether Triton serves the version in use; `served` is what it answered with, empty where it did not."""
    current = versions.in_use(repository / name)
    if current is None or served in ("", str(current.version)):
        return []
    what = f"Triton serves version {served}, and version {current.version} is in use"
    why = "A switch was cut off, Triton was not asked to load it, or could not."
    return [
        wrong("version", what, why, f"`{EXPORT} USE={current.version} NAME={quote(name)}` loads it and says why not.")
    ]


def gone(repository: Path, name: str) -> Finding:
    if CANDIDATE in name:
        return Finding(
            level="note",
            title="candidate",
            what="of an export that runs now, or was killed",
            why="It takes memory until it is unloaded.",
            change=f"where no export runs: `{EXPORT} UNLOAD={quote(name)}`.",
        )
    return Finding(
        level="note",
        title="folder",
        what=f"none in {repository}: it was deleted, or Triton has another repository",
        why="After its next start Triton does not serve the model.",
        change=f"`{EXPORT} UNLOAD={name}` takes it away now; another repository is named by MODEL_REPOSITORY.",
    )


def _examined(folder: Path) -> Iterator[Finding]:
    config, problem = read_config(folder)
    if config is None:
        yield problem
        return
    if config.name not in ("", folder.name):
        what = f"{config.name!r} in config.pbtxt, and the folder is {folder.name!r}"
        yield wrong("name", what, "Triton refuses a model with two names.", "Rename one of them.")
    version = versions.selected(config, numbered(folder))
    if version is None:
        chosen = ", ".join(map(str, config.version_policy.specific.versions))
        what = f"config.pbtxt selects version {chosen}, there is {', '.join(map(str, numbered(folder)))}"
        yield wrong("version", what, "Triton loads none.", f"`{EXPORT} USE={numbered(folder)[-1]} NAME={folder.name}`.")
        return
    yield from mixed(folder, config)
    file = folder / str(version) / (config.default_model_filename or FILES.get(backend(config), "model.onnx"))
    if file.exists() and not file.is_file():
        yield wrong("file", f"{file} is a directory, a pipe or a device", "Triton cannot read it.", again(folder))
        return
    if not file.is_file():
        there = ", ".join(sorted(path.name for path in file.parent.iterdir())) or "nothing"
        what = f"{file.name} is missing in version {version}, which holds {there}"
        yield wrong(
            "file", what, "Triton loads no other file.", f"default_model_filename in config.pbtxt, or: {again(folder)}"
        )
        return
    if file.suffix != ".onnx":
        held = "an engine: its own backend says at the load"
        yield Finding(level="info", title="contract", what=held)
        yield from fitting(folder, config, facts.Facts(None, None))
        return
    yield from _of_graph(folder, config, file)


def mixed(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    """A policy that admits several versions with different labels: Triton has one label file for all of them."""
    admitted = [number for number in numbered(folder) if versions.selected(config, [number]) is not None]
    if config.version_policy.HasField("specific") or config.version_policy.HasField("all"):
        labels = {(folder / str(number) / versions.LABELS) for number in admitted}
        texts = {file.read_bytes() for file in labels if file.is_file()}
        if len(admitted) > 1 and len(texts) > 1:
            what = f"config.pbtxt admits versions {', '.join(map(str, admitted))}, whose labels differ"
            why = "Triton has one label file for all versions: boxes of one get the names of another."
            change = (
                f"`{EXPORT} USE={admitted[-1]} NAME={quote(folder.name)}`; export the other under a name of its own."
            )
            yield wrong("labels", what, why, change)


def _of_graph(folder: Path, config: ModelConfig, file: Path) -> Iterator[Finding]:
    try:
        model = onnx.load(str(file), load_external_data=False)
    except (OSError, DecodeError) as error:
        yield wrong("file", unreadable(file, error), "Nor can Triton read it.", again(folder))
        return
    found = breaches({"name": folder.name, **declared.message_as_json(config)}, declared.graph_of(model))
    if not found:
        yield Finding(level="ok", title="contract", what="what NVIDIA's ONNX Runtime backend asks")
    for breach in found:
        if breach.refused:
            yield wrong("contract", breach.words, "Triton refuses to load it.", again(folder))
        else:
            what, why = breach.words, "Triton ignores it silently."
            yield Finding(level="note", title="contract", what=what, why=why, change=again(folder))
    yield from fitting(folder, config, facts.of(model))


def fitting(folder: Path, config: ModelConfig, said: facts.Facts) -> Iterator[Finding]:
    """Whether labels, size and stride are the graph's; of a model as the gateway takes it."""
    ours = {"images", "detections"} <= {tensor.name for tensor in (*config.input, *config.output)}
    name = facts.label_file(config)
    if not ours and not name:
        return
    try:
        if name and (folder / name).exists() and not (folder / name).is_file():
            raise OSError("it is no file")
        labels = (folder / name).read_text().splitlines() if name else None
    except (OSError, UnicodeDecodeError) as error:
        why = "Triton refuses to load the model." if isinstance(error, OSError) else "Its labels cannot be shown."
        yield wrong("labels", f"{folder / name} cannot be read: {error}", why, again(folder))
        labels = []
    else:
        mistakes = list(facts.mistakes(config, labels, said))
        for mistake in mistakes if ours else [each for each in mistakes if each.title == "labels"]:
            yield wrong(mistake.title, mistake.what, mistake.why, again(folder))


def read_config(folder: Path) -> tuple[ModelConfig | None, Finding]:
    """The config, or what is wrong with it."""
    path = folder / versions.CONFIG
    kept = [number for number in numbered(folder) if (folder / str(number) / versions.CONFIG).is_file()]
    back = f"`{EXPORT} USE={kept[-1]} NAME={folder.name}` brings a version back." if kept else again(folder)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a directory, a pipe or a device; move it away")
        return declared.parse(path.read_text()), Finding(level="ok", title="config", what=str(path))
    except text_format.ParseError as error:
        what = f"{path} cannot be read: {' '.join(str(error).split())}"
    except (OSError, UnicodeDecodeError) as error:
        if (folder / versions.UNLOADED).is_file():
            return None, Finding(
                level="info", title="config", what=f"{folder.name} is out of service (UNLOAD=); {back}"
            )
        what = f"{path} cannot be read: {error}"
    return None, wrong("config", what, "Triton loads no model without it.", back)


def again(folder: Path) -> str:
    return f"`{EXPORT} MODEL={folder.name}` (WEIGHTS= for your own) writes config and graph again."


def backend(config: ModelConfig) -> str:
    return str(config.backend or config.platform.removesuffix("_plan").removesuffix("_onnx"))


def unreadable(file: Path, error: Exception) -> str:
    with file.open("rb") as content:
        pointer = content.read(20).startswith(b"version https://git")
    if pointer:
        return f"{file} is a pointer of Git LFS, not the model; `git lfs pull` fetches it"
    return f"{file} is no ONNX file, or a damaged one: {' '.join(str(error).split())}"


def wrong(title: str, what: str, why: str, change: str) -> Finding:
    return Finding(level="wrong", title=title, what=what, why=why, change=change)
