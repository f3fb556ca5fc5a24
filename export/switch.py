"""`make export-model USE= ROLLBACK=1 UNLOAD= DELETE= LIST=1`: which version is served, without an export.

Each switch is one rename, then a load by the running Triton: requests under way end on the old version. Where no Triton
runs, its next start takes what is in use.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from export import model_name, repository, triton, versions
from export.config import Device
from export.errors import ExportError
from export.options import Options

Report = Callable[[str], None]


def run(options: Options, report: Report) -> None:
    """Do what `options` ask for instead of an export. Raises ExportError, with everything as it was."""
    model_name.check(options.name)
    model = options.repository / options.name
    if options.use is not None:
        use(model, options.use, report)
    elif options.rollback:
        use(model, older(model), report)
    elif options.unload is not None:
        unload(*named(options, options.unload), report)
    elif options.delete is not None:
        delete(*named(options, options.delete), report)


def named(options: Options, given: str) -> tuple[Path, int | None]:
    """The model, and the version if the value is a number."""
    if given.isdecimal() and not (options.repository / given).is_dir():
        return options.repository / options.name, int(given)
    model_name.check(given)
    return options.repository / given, None


def older(model: Path) -> int:
    """The next older version than the one in use."""
    current = versions.in_use(model)
    if current is None:
        raise ExportError(f"no version of {model} is in use; USE= names the one to serve ({there(model)})")
    found = [number for number in repository.versions(model) if number < current.version]
    if not found:
        raise ExportError(f"{model} has no version older than {current.version}, which is in use ({there(model)})")
    return found[-1]


def use(model: Path, number: int, report: Report) -> None:
    """Serve version `number` from now on. A Triton that does not load it leaves all as it was."""
    if number not in repository.versions(model):
        raise ExportError(f"{model} has no version {number} ({there(model)})")
    with versions.locked(model), triton.running() as server, versions.undone_on_error(model):
        current = versions.in_use(model)
        versions.keep_facts(model)
        versions.use(model, number)
        was = "" if current is None or current.version == number else f", version {current.version} before"
        try:
            answer = loaded(server, model, number)
        except triton.Refused as refusal:
            raise ExportError(f"Triton does not load version {number}: {refusal}; all is as it was") from refusal
    report(f"{model} uses version {number}{was}; {answer}")


def loaded(server: triton.Triton | None, model: Path, number: int) -> str:
    """Let a running Triton load the version in use; what came of it."""
    if server is None:
        return f"no Triton answers at {triton.address()}, the next start serves it"
    return server.take_up(model.name, number, device(model))


def unload(model: Path, number: int | None, report: Report) -> None:
    """Take a model out of service until USE= or the next export brings it back."""
    current = versions.in_use(model)
    if number is not None and (current is None or current.version != number):
        now = f"version {current.version} is" if current else "none is"
        raise ExportError(f"version {number} of {model} is not in use, {now}; UNLOAD={model.name} names the model")
    if not model.is_dir():
        report(f"{model} is not there; {unloaded(model.name, must=True)}")
        return
    with versions.locked(model):
        if current is None:
            report(f"{model} is out of service already; {unloaded(model.name)}")
            return
        versions.take_out(model)
        back = f"USE={current.version} NAME={model.name} brings it back"
        report(f"{model} is out of service, version {current.version} was in use; {unloaded(model.name)}; {back}")


def delete(model: Path, number: int | None, report: Report) -> None:
    """Remove a version that is not in use, or a whole model."""
    if number is None:
        if not model.is_dir():
            raise ExportError(f"there is no model {model}; UNLOAD={model.name} takes one whose folder is gone away")
        with versions.locked(model):
            if versions.in_use(model):
                versions.take_out(model)
            answer = unloaded(model.name)
            with repository.told_as_error(model):
                shutil.rmtree(model)
        report(f"removed {model} and all its versions; {answer}")
        return
    if number not in repository.numbered(model):
        raise ExportError(f"{model} has no version {number} ({there(model)})")
    with versions.locked(model), triton.running() as server:
        current = versions.in_use(model)
        if current is not None and current.version == number:
            raise ExportError(f"version {number} of {model} is in use; say USE= with another first ({there(model)})")
        if server is not None and number in server.served().get(model.name, []):
            raise ExportError(f"Triton at {server.url} serves version {number} of {model.name}; USE= another first")
        repository.remove(model, number)
    report(f"removed version {number} of {model}")


def unloaded(name: str, must: bool = False) -> str:
    """Let a running Triton take the model away; what came of it. Raises ExportError where it `must` have had one."""
    with triton.running() as server:
        if server is None:
            answer = f"no Triton answers at {triton.address()}"
        elif name not in server.served():
            answer = f"Triton at {server.url} serves none of that name"
        else:
            return asked_to_unload(server, name)
    if must:
        raise ExportError(f"there is no model {name}: {answer}")
    return answer


def asked_to_unload(server: triton.Triton, name: str) -> str:
    try:
        server.unload(name)
    except triton.NotAsked:
        return f"Triton at {server.url} was not asked: {triton.UNASKED}"
    except triton.Refused as refusal:
        return f"Triton at {server.url} did not unload it: {refusal}"
    return f"Triton at {server.url} has unloaded it"


def listing(place: Path, name: str = "") -> Iterator[str]:
    """A table with a row for each version of each model, or of that one, and lines for what Triton serves besides."""
    served, note = what_is_served()
    found = sorted(path for path in place.glob("*") if name in ("", path.name) and repository.numbered(path))
    none = f"{place} holds no model {name}".rstrip()
    yield from table([row for model in found for row in rows(model, served)]) if found else [none]
    others = {each for each in served or {} if name in ("", each)}
    for name in sorted(others - {model.name for model in found}):
        yield f"{name} is not in {place}, yet Triton serves it: UNLOAD={name} takes it away"
    if note:
        yield note


def rows(model: Path, served: dict[str, list[int]] | None) -> Iterator[list[str]]:
    current = versions.in_use(model)
    complete = repository.versions(model)
    for number in repository.numbered(model):
        folder = model / str(number)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        state = in_use_since(current, number, served, model.name)
        if number not in complete:
            state = f"{state}, without a model file".removeprefix(", ")
        yield [model.name, str(number), f"{size / 1e6:.1f} MB", state, measured(folder), *exported(folder)]


def table(content: list[list[str]]) -> Iterator[str]:
    lines = [["model", "version", "size", "in use", "mAP50-95", "exported", "of", "for"], *content]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def what_is_served() -> tuple[dict[str, list[int]] | None, str]:
    """The versions that a running Triton serves, by model; None, and a line that says why, where that is not known."""
    with triton.running() as server:
        if server is None:
            return None, f"no Triton answers at {triton.address()}: its next start serves what is in use"
        try:
            return server.served(), ""
        except ExportError as error:
            return None, str(error)


def in_use_since(current: versions.InUse | None, number: int, served: dict[str, list[int]] | None, name: str) -> str:
    """Of one version: whether it is in use, since when, and whether Triton serves it."""
    is_served = served is not None and number in served.get(name, [])
    if current is None:
        return "out of service" + (", yet Triton serves it" if is_served else "")
    if current.version != number:
        return "no, yet Triton serves it" if is_served else ""
    since = f"since {current.since}" if current.since else "yes"
    if served is None:
        return since
    return f"{since}, served" if is_served else f"{since}, NOT served: `make doctor` says why"


def measured(version: Path) -> str:
    """The mAP that `make evaluate` has left there, and of what."""
    try:
        found = json.loads((version / versions.SCORE).read_text())
        return f"{found['map50_95']:.4f} {Path(found['data']).name} {found['split']}".rstrip()
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def exported(version: Path) -> list[str]:
    """When, of what, and for what."""
    try:
        done: dict[str, str] = json.loads((version / "verify.json").read_text())["export"]
        return [
            done["exported"],
            done["source"],
            " ".join(done[key] for key in ("device", "format", "precision", "input")),
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return ["not here: no verify.json", "", ""]


def there(model: Path) -> str:
    found = repository.versions(model)
    return f"it has {', '.join(map(str, found))}" if found else "LIST=1 shows what there is"


def device(model: Path) -> Device:
    return "gpu" if "KIND_GPU" in (model / versions.CONFIG).read_text() else "cpu"
