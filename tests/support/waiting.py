"""Polls until a condition is true."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

POLL_S = 0.005
_HEED_S = 1.0


async def until(is_so: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Poll until ``is_so`` returns true; TimeoutError on time-out."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110  # nothing to wait on: that is what this is for
            await asyncio.sleep(POLL_S)


async def until_true(ask: Callable[[], Awaitable[bool]], *, timeout_s: float = 20.0) -> None:
    """The same for an async condition."""
    async with asyncio.timeout(timeout_s):
        while not await ask():  # noqa: ASYNC110  # as above
            await asyncio.sleep(POLL_S)


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel ``tasks`` until they have ended, and ignore their results.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which the NATS client waits with, loses
    a cancellation that comes together with what it waits for.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        ended, running = await asyncio.wait(running, timeout=_HEED_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # Retrieved; otherwise asyncio logs that it never was.
