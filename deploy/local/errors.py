"""What the local stack tells a person when it can't go on."""


class StackError(Exception):
    """The local stack can't go on. The message is one line: what is wrong, and what to do."""
