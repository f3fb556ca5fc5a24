"""Why an export stops, for the person who asked for it."""


class ExportError(Exception):
    """The export cannot go on; the message is one line: what, where and what to do."""


class NoWeightsError(ExportError):
    """There is no checkpoint, and none can be downloaded."""


class VerificationError(ExportError):
    """The exported model does not answer as the checkpoint does; nothing was published."""
