"""A probe that many ask at once runs once: /readyz is for everybody, and asks every shard."""

import asyncio
from collections.abc import Awaitable, Callable

from serve_app.http.models import Component


class SingleFlight:
    """Whoever asks while an answer is on its way gets that one. Each run ends by ``timeout_s``."""

    def __init__(self, probe: Callable[[], Awaitable[Component]], *, timeout_s: float) -> None:
        self._probe = probe
        self._timeout_s = timeout_s
        self._running: asyncio.Task[Component] | None = None

    async def __call__(self) -> Component:
        """The probe's answer, or what it raises.

        Raises:
            TimeoutError: none came in time.
        """
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._running.add_done_callback(self._forget)
        return await asyncio.shield(self._running)

    async def _run(self) -> Component:
        async with asyncio.timeout(self._timeout_s):
            return await self._probe()

    def _forget(self, done: asyncio.Task[Component]) -> None:
        self._running = None
        if not done.cancelled():
            done.exception()  # told to those who still wait; perhaps nobody does
