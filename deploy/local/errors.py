"""The error that commands print."""


class StackError(Exception):
    """A command failed. The message is one line: the problem, and what to do."""
