"""Proof of what docs/reliability.md promises: `python -m reliability chaos|fuzz|overload`."""
