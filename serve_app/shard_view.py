"""One view of all shards per replica: however many probes ask, each shard is asked once a second.

/readyz needs no API key, and two of its components need the statistics of every shard. A balancer
of N probers that asks every second would otherwise ask each shard 2 N times a second.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MAX_AGE_S: Final = 1.0
"""How old a view may be. Shards probe their writes at this interval, too."""


class SharedView(Generic[T]):
    """The last result of ``collect``, renewed when it is asked for and too old.

    ``clock``: seconds, monotonic. Callers during a renewal share it; its errors are not kept.
    """

    def __init__(
        self,
        collect: Callable[[], Awaitable[T]],
        *,
        clock: Callable[[], float],
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._max_age_s = max_age_s
        self._taken_s = float("-inf")
        self._running: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """The view; raises what ``collect`` raises."""
        if self._is_old(self._running):
            self._taken_s = self._clock()
            self._running = asyncio.create_task(self._renew())
            self._running.add_done_callback(_take_exception)
        assert self._running is not None, "just made"
        return await asyncio.shield(self._running)

    def _is_old(self, view: "asyncio.Task[T] | None") -> bool:
        if view is None:
            return True
        if not view.done():
            return False
        failed = view.cancelled() or view.exception() is not None
        return failed or self._clock() - self._taken_s > self._max_age_s

    async def _renew(self) -> T:
        return await self._collect()


def _take_exception(done: "asyncio.Task[object]") -> None:
    if not done.cancelled():
        done.exception()  # Waiters get it; without waiters asyncio would log it.
