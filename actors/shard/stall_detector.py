"""Detects a batch that the database does not answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class StallDetector:
    """When the current batch started, and whether the journal's last call succeeded."""

    __slots__ = ("_busy_since", "_checking_since", "_stall_s", "journal_ready")

    def __init__(self, database_stall_timeout_s: float) -> None:
        self._stall_s = database_stall_timeout_s
        self._busy_since: float | None = None
        self._checking_since: float | None = None
        self.journal_ready = True

    def restart(self) -> None:
        """A batch starts now."""
        self._busy_since = asyncio.get_running_loop().time()

    def restart_ready(self) -> None:
        """The database was just found to be there: what failed before counts no more."""
        self.journal_ready = True
        if self._busy_since is not None:
            self.restart()

    def stop(self) -> None:
        """The batch has ended."""
        self._busy_since = None

    @contextmanager
    def checking_database(self) -> Iterator[None]:
        """A database that answers is being checked. A batch may wait for that, and what queues
        behind it, too, also if the batch had failed before."""
        self._checking_since = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._checking_since = None

    def is_stalled(self) -> bool:
        """Whether the database has failed the current batch, or not answered it in time."""
        if self._busy_since is None:
            return False
        now = asyncio.get_running_loop().time()
        if self._checking_since is not None:
            return now - self._checking_since > self._stall_s
        return not self.journal_ready or now - self._busy_since > self._stall_s
