"""Errors that an operator must see as a sentence. This module imports no driver."""

from typing import Final


class InvalidDsn(ValueError):
    """The DSN can't be read. The message contains nothing of it."""


class PoolerRefused(ConnectionError):
    """A host is a pooler that the service can't use. The message is for the operator."""

    def __init__(self, host: object, evidence: str) -> None:
        """``evidence`` completes the sentence "this pooler can't be used: …"."""
        super().__init__(
            f"{host} is a connection pooler that the service can't use: {evidence}. The service "
            "needs settings sent at session start, prepared statements and session-level advisory "
            "locks. Connect to Postgres itself, through a TCP proxy, or through a pooler in "
            "session mode that forwards startup parameters."
        )


class NoHostAvailable(ConnectionError):
    """No host of the DSN could be used; the message has a reason for each."""


OPERATOR_ERRORS: Final = (InvalidDsn, PoolerRefused, NoHostAvailable)
