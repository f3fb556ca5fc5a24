"""What is wrong with a data set."""


class DatasetError(ValueError):
    """The data set cannot be used; the message is one line: what, where, what to do."""
