"""The one error of `python -m local`."""


class LocalError(Exception):
    """Something the user can put right. The message is one line: what, where, what to do."""
