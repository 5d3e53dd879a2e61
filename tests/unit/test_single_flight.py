"""Probes with concurrent callers."""

import asyncio

import pytest

from serve_app.http.models import Component
from serve_app.single_flight import SingleFlight

READY = Component(ready=True, detail="answers")


async def test_a_crowd_is_one_probe_and_the_next_to_come_another() -> None:
    runs = 0
    may_answer = asyncio.Event()

    async def probe() -> Component:
        nonlocal runs
        runs += 1
        await may_answer.wait()
        return READY

    shared = SingleFlight(probe, timeout_s=5)
    crowd = [asyncio.create_task(shared()) for _ in range(100)]
    await asyncio.sleep(0)
    crowd[0].cancel()
    await asyncio.sleep(0)
    may_answer.set()

    assert await asyncio.gather(*crowd[1:]) == [READY] * 99
    assert runs == 1
    await shared()
    assert runs == 2


async def test_a_probe_that_hangs_is_given_up_and_retried() -> None:
    hangs = True

    async def probe() -> Component:
        if hangs:
            await asyncio.Event().wait()
        return READY

    shared = SingleFlight(probe, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        await shared()
    hangs = False
    assert await shared() == READY


async def test_every_waiting_caller_gets_the_failure() -> None:
    async def probe() -> Component:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    shared = SingleFlight(probe, timeout_s=5)
    found = await asyncio.gather(*(shared() for _ in range(3)), return_exceptions=True)

    assert [str(one) for one in found] == ["broken"] * 3
