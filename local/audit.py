"""`make audit`: asks advisory databases for every locked package, through pip-audit.

A database that cannot be asked is not a clean bill: the exit status is 0 only when every package was looked up.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

NOTHING_KNOWN, FOUND, NOT_DONE = 0, 1, 2
SERVICES = ("pypi", "osv")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_SECONDS = 600


class NotDone(Exception):
    """No answer, or not for all packages; the message is one line."""


class Report(NamedTuple):
    """What a database knows: how many packages were looked up, and a line for each finding."""

    packages: int
    findings: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="audit", description=__doc__)
    parser.add_argument("--pip-audit", required=True, metavar="COMMAND")
    parser.add_argument(
        "--pin", action="append", default=[], metavar="NAME==VERSION", help="besides those of the files"
    )
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    packages = rounds({pin for file in options.files for pin in pins(file.read_text())} | set(options.pin))
    reasons = []
    for service in SERVICES:
        try:
            return tell([ask(options.pip_audit, service, each) for each in packages])
        except NotDone as error:
            reasons.append(f"{service}: {textwrap.shorten(str(error), 150)}")
    print(f"audit: not done, no database could be asked about all packages ({'; '.join(reasons)})", file=sys.stderr)
    return NOT_DONE


def pins(lock: str) -> list[str]:
    """`NAME==VERSION` of each package of a lock file."""
    return [f"{name}=={version}" for name, version in _PIN.findall(lock)]


def rounds(packages: set[str]) -> list[list[str]]:
    """The same packages so that no list has two versions of one; each Python may have its own."""
    lists: list[dict[str, str]] = []
    for pin in sorted(packages):
        name = pin.partition("==")[0].lower()
        free = next((each for each in lists if name not in each), None)
        if free is None:
            lists.append(free := {})
        free[name] = pin
    return [list(each.values()) for each in lists]


def ask(command: str, service: str, packages: list[str]) -> Report:
    """Raises NotDone."""
    arguments = ["--vulnerability-service", service, "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(packages))
        file.flush()
        call = [command, *arguments, "--format", "json", "--requirement", file.name]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotDone(str(error)) from error
    return read(done.stdout, done.stderr)


def read(answer: str, complaint: str) -> Report:
    """The report in pip-audit's JSON. Raises NotDone."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        lines = complaint.split("\n")
        raise NotDone(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")) from error
    skipped = [each for each in dependencies if "skip_reason" in each]
    if skipped or not dependencies:
        reason = skipped[0]["skip_reason"] if skipped else "no packages"
        raise NotDone(f"{len(skipped)} of {len(dependencies)} packages not looked up, such as: {reason}")
    findings = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none yet'}"
        for each in dependencies
        for flaw in each["vulns"]
    ]
    return Report(len(dependencies), sorted(set(findings)))


def tell(reports: list[Report]) -> int:
    packages, findings = sum(each.packages for each in reports), [line for each in reports for line in each.findings]
    if not findings:
        print(f"audit: {packages} packages, nothing is known against any")
        return NOTHING_KNOWN
    print(*findings, sep="\n")
    print(f"audit: {len(findings)} findings in {packages} packages", file=sys.stderr)
    return FOUND


if __name__ == "__main__":
    sys.exit(main())
