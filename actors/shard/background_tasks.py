"""Work beside the work: what a chore meets must not end the process that moves money."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

_log = structlog.get_logger(__name__)

_PAUSE_S: Final = 1.0
"""Wait before a chore that failed begins again."""


class BackgroundTasks:
    """Keeps chores going, and counts how often each failed."""

    def __init__(self, *, pause_s: float = _PAUSE_S) -> None:
        self._pause_s = pause_s
        self.failures: Counter[str] = Counter()

    async def supervise(self, name: str, chore: Callable[[], Awaitable[None]]) -> NoReturn:
        """Do ``chore`` until cancelled; if it fails or ends, begin it again after a pause."""
        while True:
            try:
                await chore()
                _log.error("background task ended", chore=name)
            except Exception:  # noqa: BLE001 - whatever it is, the process has money to move
                _log.error("background task failed", chore=name, exc_info=True)
            self.failures[name] += 1
            await asyncio.sleep(self._pause_s)
