"""What the check of whether the journal accepts writes needs of it."""

from typing import Protocol


class ProbeFailed(Exception):
    """A write probe failed. The message begins with the SQLSTATE, if the server gave one."""


class WriteProbe(Protocol):
    """Checks that the journal accepts writes, by writing something that nobody reads."""

    async def write(self, *, allocating: bool) -> None:
        """Return once the probe is committed as a batch would be.

        ``allocating``: also try to allocate disk space.

        Raises:
            ProbeFailed: the server rejected it, or there is no connection.
        """
