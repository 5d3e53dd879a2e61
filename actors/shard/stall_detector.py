"""Detects a batch that the database does not answer."""

import asyncio


class StallDetector:
    """When the current batch started, and whether the journal's last call succeeded."""

    __slots__ = ("_busy_since", "_stall_s", "journal_ready")

    def __init__(self, database_stall_timeout_s: float) -> None:
        self._stall_s = database_stall_timeout_s
        self._busy_since: float | None = None
        self.journal_ready = True

    def restart(self) -> None:
        """A batch starts now."""
        self._busy_since = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """The batch has ended."""
        self._busy_since = None

    def is_stalled(self) -> bool:
        """Whether the database has failed the current batch, or not answered it in time."""
        if self._busy_since is None:
            return False
        waited_s = asyncio.get_running_loop().time() - self._busy_since
        return not self.journal_ready or waited_s > self._stall_s
