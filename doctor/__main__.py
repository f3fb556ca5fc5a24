"""`make doctor`: look at a running Triton and say in plain words whether what people believe of it is true."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from doctor import published, report
from doctor.checks import examine
from doctor.findings import EXPORT, Finding, plural
from doctor.host import look_at
from doctor.model import Host, Model, Trial
from doctor.triton import Listed, Refused, Triton, Unreachable
from export import versions
from export.address import ROOT, AddressError, Place, find
from export.errors import print_any_name

NOTHING_WRONG, WRONG, NOT_EXAMINED = 0, 1, 2


class UsageError(Exception):
    """The command line has no meaning; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0 when nothing is wrong, 1 when something is, 2 when Triton could not be looked at."""
    try:
        options = parser().parse_args(arguments)
        place = find(options.url, options.metrics_url, os.environ)
        repository = options.repository or place.repository
        triton = Triton(place.url, place.key)
        try:
            return doctor(triton, place, repository, options.model)
        finally:
            triton.close()
    except Unreachable as error:
        what_to_do = "start it with `make run`, or give its gRPC endpoint with TRITON_URL=host:port"
        reason = str(error).rpartition(": ")[2]
        lying(repository or ROOT / "model_repository", options.model)
        print(f"doctor: no Triton answers at {place.url} ({reason}); {what_to_do}", file=sys.stderr)
    except (AddressError, Refused, UsageError) as error:
        print(f"doctor: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("doctor: interrupted", file=sys.stderr)
        return 130
    return NOT_EXAMINED


def doctor(triton: Triton, place: Place, repository: Path | None, name: str) -> int:
    """Examine one model, or all that Triton has when `name` is empty, and print the report.

    Those that lie in `repository` are read there too.
    """
    width = columns()
    version, models = triton.version(), chosen(triton.models(), repository, name)
    host, metrics = look_at(place)
    where = f"this machine, {plural(host.cores, 'core')}" if host.cores else "another machine"
    findings = [served(models), metrics_answer(place, metrics)]
    shown = [finding for finding in findings if finding.level != "ok"]
    print(f"Triton {version} at {place.url} ({where})", *report.lines(shown, width), sep="\n")
    for listed in models:
        findings += examined(triton, listed, host, repository, width)
    print(f"\n{report.verdict(findings)}")
    return WRONG if any(finding.level == "wrong" for finding in findings) else NOTHING_WRONG


def examined(triton: Triton, listed: Listed, host: Host, repository: Path | None, width: int) -> list[Finding]:
    """Examine one model and print what was found."""
    contract = published.examine(repository, listed.name) if repository else []
    if not listed.ready:
        current = versions.in_use(repository / listed.name) if repository else None
        explained = any(finding.level == "wrong" for finding in contract)
        findings = [not_loaded(listed, explained, current.version if current else 0), *contract]
        print(f"\n{listed.name}", *report.lines(findings, width), sep="\n")
        return findings
    model = triton.model(listed.name)
    trial = tried(triton, model)
    spoilt = {finding.title for finding in contract if finding.level == "wrong"}
    said = [finding for finding in examine(model, trial, host) if finding.level != "ok" or finding.title not in spoilt]
    findings = said + contract
    if repository:
        findings += published.another_version(repository, listed.name, trial.version)
    version = f", version {trial.version}" if trial.version else ""
    print(f"\n{model.name}{version} ({model.engine})", *report.lines(findings, width), sep="\n", flush=True)
    return findings


def lying(repository: Path, name: str) -> None:
    """Print what is wrong with the models on disk: it may be why no Triton answers."""
    for found in published.models(repository):
        wrong = [finding for finding in published.examine(repository, found) if finding.level == "wrong"]
        if wrong and name in ("", found):
            print(f"{repository / found}", *report.lines(wrong, columns()), "", sep="\n")


def columns() -> int:
    return min(shutil.get_terminal_size().columns, 110)


def tried(triton: Triton, model: Model) -> Trial:
    """The trial, with a line at a terminal that goes away when it ends."""
    if not sys.stderr.isatty():
        return triton.trial(model)
    print(f"asking {model.name} for a few seconds ...", end="", file=sys.stderr, flush=True)
    try:
        return triton.trial(model)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def chosen(listed: list[Listed], repository: Path | None, name: str) -> list[Listed]:
    """The models that Triton lists, and those in its repository that it does not."""
    known = {each.name for each in listed}
    others = set(published.models(repository)) - known if repository else set()
    models = sorted([*listed, *(Listed(each, False, "") for each in others)], key=lambda each: each.name)
    if name and repository and (repository / name).is_dir() and name not in {each.name for each in models}:
        models.append(Listed(name, False, ""))
    found = [each for each in models if name in ("", each.name)]
    if name and not found:
        there = f"it has {', '.join(each.name for each in models)}" if models else "it has none"
        raise UsageError(f"Triton has no model {name}: {there}")
    return found


def served(models: list[Listed]) -> Finding:
    if models:
        return Finding(level="ok", title="models", what=str(len(models)))
    return Finding(
        level="wrong",
        title="models",
        what="none is loaded",
        why="There is nothing that could answer.",
        change="`make export-model`, and load it: --model-control-mode=poll, or --load-model=NAME.",
    )


def not_loaded(listed: Listed, explained: bool, in_use: int = 0) -> Finding:
    """`explained`: what is wrong in the repository is said below. A sound model was perhaps only never asked for."""
    if in_use and not explained and not listed.reason:
        return Finding(
            level="wrong",
            title="not loaded",
            what="Triton was not asked to load it, or its log says why not",
            why="Every request for this model is refused.",
            change=f"`{EXPORT} USE={in_use} NAME={shlex.quote(listed.name)}` has Triton load it, and says why not.",
        )
    unsaid = "Triton has loaded nothing from its folder" + ("" if explained else "; its log may say why")
    return Finding(
        level="wrong",
        title="not loaded",
        what=listed.reason or unsaid,
        why="Every request for this model is refused.",
        change=f"`{EXPORT} MODEL={shlex.quote(listed.name)}` (WEIGHTS= for your own) writes config and graph again.",
    )


def metrics_answer(place: Place, answered: bool) -> Finding:
    if answered:
        return Finding(level="ok", title="metrics", what=place.metrics_url)
    return Finding(
        level="info", title="metrics", what=f"do not answer at {place.metrics_url} (METRICS_URL= names another)"
    )


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `python -m doctor --help` lists the options")


def folder(path: str) -> Path | None:
    found = Path(os.path.expanduser(path))
    if path and not os.path.isdir(found):
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    return found if path else None


def parser() -> argparse.ArgumentParser:
    """An empty value means "not given", so that make can pass every option."""
    made = Parser("python -m doctor", description=__doc__, allow_abbrev=False)
    add = made.add_argument
    add("--url", default="", metavar="HOST:PORT", help="Triton's gRPC endpoint (default: TRITON_URL, else make run's)")
    add("--metrics-url", default="", metavar="URL", help="its metrics (default: METRICS_URL, else port 8002)")
    add(
        "--repository",
        type=folder,
        metavar="PATH",
        help="its model repository on this machine (default: MODEL_REPOSITORY, else make run's)",
    )
    add("--model", default="", metavar="NAME", help="look at this model only (default: all that are loaded)")
    return made


if __name__ == "__main__":
    print_any_name()
    sys.exit(main())
