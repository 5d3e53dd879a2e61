"""Whether a batch is stuck at the database."""

import asyncio


class StallDetector:
    """Knows when the batch under way began, and whether the journal answered last."""

    __slots__ = ("_busy_since", "_stall_s", "journal_ready")

    def __init__(self, database_stall_timeout_s: float) -> None:
        self._stall_s = database_stall_timeout_s
        self._busy_since: float | None = None
        self.journal_ready = True

    def restart(self) -> None:
        """A batch is under way, from now on."""
        self._busy_since = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """No batch is under way."""
        self._busy_since = None

    def is_stalled(self) -> bool:
        """A batch is under way that the database has failed, or leaves unanswered for too long."""
        if self._busy_since is None:
            return False
        waited_s = asyncio.get_running_loop().time() - self._busy_since
        return not self.journal_ready or waited_s > self._stall_s
