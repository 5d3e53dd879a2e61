"""Messages between processes: each takes a random moment, so any two may overtake each other."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from tests.simulation.loop import Process, SimulatedLoop

T = TypeVar("T")


class Lost(Exception):
    """The other side died, or became unreachable, before it answered."""


class Network:
    """Carries calls. ``latency_s`` is the usual delay of a message; a few take much longer."""

    def __init__(self, loop: SimulatedLoop, random: Random, *, latency_s: float) -> None:
        self._loop = loop
        self._random = random
        self._latency_s = latency_s
        self.slow_share = 0.0

    def delay_s(self) -> float:
        delay_s = self._latency_s * (0.5 + self._random.random())
        if self._random.random() < self.slow_share:
            delay_s *= 1 + 100 * self._random.random()
        return delay_s

    async def call(self, caller: Process, callee: Process, work: Callable[[], Awaitable[T]]) -> T:
        """Have ``callee`` do ``work`` and bring back what it returned or raised.

        Raises:
            Lost: ``callee`` died before its answer was on the way.
        """
        answer: asyncio.Future[T] = self._loop.create_future()

        def arrive(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        async def serve() -> None:
            try:
                result = await work()
            except Exception as error:  # noqa: BLE001 - it travels to the caller
                caller.call_later(self.delay_s(), arrive, None, error)
            else:
                caller.call_later(self.delay_s(), arrive, result, None)

        def lose() -> None:
            caller.call_later(self.delay_s(), arrive, None, Lost(callee.name))

        if not callee.alive:
            lose()
        else:
            callee.on_death(lose)
            callee.call_later(self.delay_s(), lambda: callee.start(serve()))
        return await answer
