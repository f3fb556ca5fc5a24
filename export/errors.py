"""Why an export stops, for the person who asked for it."""


class ExportError(Exception):
    """The export cannot go on; the message is one line: what, where and what to do."""


class NoWeightsError(ExportError):
    """There is no checkpoint, and none can be downloaded."""


class VerificationError(ExportError):
    """The exported model does not answer as the checkpoint does; nothing was published."""


def shortened(text: str, most: int) -> str:
    """A text of the user's for a message: on one line, of so many characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
