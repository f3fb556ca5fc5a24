"""Findings as text for a person at a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from doctor.findings import Finding, plural

MARKS = {"ok": "ok", "info": "-", "note": "note", "wrong": "WRONG"}
MARK, TITLE = 7, 17


def lines(findings: Sequence[Finding], width: int) -> list[str]:
    """One paragraph a finding: a mark, a title, what was found; under it why it matters and what to change."""
    shown = []
    for finding in findings:
        head = f"  {MARKS[finding.level]:<{MARK}}{finding.title:<{TITLE}}"
        shown += wrapped(head, finding.what, width)
        for said, words in (("why", finding.why), ("change", finding.change)):
            if words:
                shown += wrapped(" " * (2 + MARK) + f"{said:>{TITLE - 2}}  ", words, width)
    return shown


def wrapped(head: str, words: str, width: int) -> list[str]:
    return textwrap.wrap(
        words,
        max(width, len(head) + 30),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )


def verdict(findings: Sequence[Finding]) -> str:
    """The last line: how many are wrong and how many deserve a look."""
    wrong = sum(finding.level == "wrong" for finding in findings)
    notes = sum(finding.level == "note" for finding in findings)
    looks = f"{plural(notes, 'thing')} worth a look" if notes else ""
    if not wrong:
        return f"Nothing is wrong{f'; {looks}' if looks else ''}."
    return f"{plural(wrong, 'thing')} {'is' if wrong == 1 else 'are'} wrong{f', {looks}' if looks else ''}."
