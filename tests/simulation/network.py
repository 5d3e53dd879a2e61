"""Messages between processes, with random latency: any two may be reordered."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

from tests.simulation.loop import Process, SimulatedLoop

T = TypeVar("T")

_STRAY_S_MAX: Final = 1.0
"""How long a request sent over a broken connection may be in flight: longer than a retry and its
response take."""


class Lost(Exception):
    """The callee died or became unreachable before it responded."""


class Network:
    """Carries calls. ``latency_s`` is the usual delay of a message; a few take much longer.

    ``broken_share`` of the breakable calls break: the caller gets a connection error while its
    request is in flight and is executed if it arrives.
    """

    def __init__(self, loop: SimulatedLoop, random: Random, *, latency_s: float) -> None:
        self._loop = loop
        self._random = random
        self._latency_s = latency_s
        self.slow_share = 0.0
        self.broken_share = 0.0

    def delay_s(self) -> float:
        delay_s = self._latency_s * (0.5 + self._random.random())
        if self._random.random() < self.slow_share:
            delay_s *= 1 + 100 * self._random.random()
        return delay_s

    async def call(
        self,
        caller: Process,
        callee: Process,
        work: Callable[[], Awaitable[T]],
        *,
        may_break: bool = False,
    ) -> T:
        """Run ``work`` in ``callee`` and return or raise its result.

        Raises:
            Lost: ``callee`` died before it responded, or the connection broke.
        """
        answer: asyncio.Future[T] = self._loop.create_future()

        def arrive(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]  # no error: an answer

        async def serve() -> None:
            try:
                result = await work()
            except Exception as error:  # noqa: BLE001 - it travels to the caller
                caller.call_later(self.delay_s(), arrive, None, error)
            else:
                caller.call_later(self.delay_s(), arrive, result, None)

        def lose() -> None:
            caller.call_later(self.delay_s(), arrive, None, Lost(callee.name))

        there_s = self.delay_s()
        if may_break and self._random.random() < self.broken_share:
            lose()
            there_s += _STRAY_S_MAX * self._random.random()
        if not callee.alive:
            lose()
        else:
            callee.on_death(lose)
            callee.call_later(there_s, lambda: callee.start(serve()))
        return await answer
