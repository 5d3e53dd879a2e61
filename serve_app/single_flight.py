"""Single flight: concurrent /readyz requests share one probe run.

/readyz needs no API key, and each run calls every shard.
"""

import asyncio
from collections.abc import Awaitable, Callable

from serve_app.http.models import Component


class SingleFlight:
    """Calls during a run get that run's result. Each run ends within ``timeout_s``."""

    def __init__(self, probe: Callable[[], Awaitable[Component]], *, timeout_s: float) -> None:
        self._probe = probe
        self._timeout_s = timeout_s
        self._running: asyncio.Task[Component] | None = None

    async def __call__(self) -> Component:
        """The probe's result, or what it raises.

        Raises:
            TimeoutError: no result in time.
        """
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._running.add_done_callback(self._on_done)
        return await asyncio.shield(self._running)

    async def _run(self) -> Component:
        async with asyncio.timeout(self._timeout_s):
            return await self._probe()

    def _on_done(self, done: asyncio.Task[Component]) -> None:
        self._running = None
        if not done.cancelled():
            done.exception()  # Waiters get it; without waiters asyncio would log it.
