"""Background tasks of a shard: an exception in one must not end the shard process."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

_log = structlog.get_logger(__name__)

_PAUSE_S: Final = 1.0
"""Wait before a failed background task is restarted."""


class BackgroundTasks:
    """Restarts background tasks that fail, and counts each one's failures."""

    def __init__(self, *, pause_s: float = _PAUSE_S) -> None:
        self._pause_s = pause_s
        self.failures: Counter[str] = Counter()

    async def supervise(self, name: str, task: Callable[[], Awaitable[None]]) -> NoReturn:
        """Run ``task`` until cancelled; if it fails or returns, restart it after a pause."""
        while True:
            try:
                await task()
                _log.error("background task ended", chore=name)
            except Exception:  # noqa: BLE001 - no error may stop the shard process
                _log.error("background task failed", chore=name, exc_info=True)
            self.failures[name] += 1
            await asyncio.sleep(self._pause_s)
