"""What is measured, and how; docs/performance.md."""

import sys


def say(text: str) -> None:
    """A line to whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
