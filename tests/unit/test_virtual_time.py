"""Unit tests don't sleep: waits in an event loop are skipped, others fail the test."""

import asyncio
import time
from itertools import pairwise

import pytest

from tests.support.virtual_time import QUIET_S, TURN_S, VirtualTime, VirtualTimeLoop

HOUR_S = 3_600.0


async def test_a_wait_is_skipped_and_the_clock_shows_that_it_took_place() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    began_s, real_s = loop.time(), time.monotonic()

    await asyncio.sleep(HOUR_S)

    assert loop.time() - began_s == pytest.approx(HOUR_S, abs=0.001)
    assert time.monotonic() - real_s < HOUR_S / 100


async def test_timers_fire_in_their_order() -> None:
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    for delay_s in (3.0, 1.0, 2.0):
        loop.call_later(delay_s, lambda: fired.append(loop.time()))

    await asyncio.sleep(HOUR_S)

    assert len(fired) == 3
    assert [later - earlier for earlier, later in pairwise(fired)] == pytest.approx(
        [1.0, 1.0], abs=0.001
    )


async def test_the_clock_hardly_moves_while_something_is_ready() -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    late = loop.call_later(1.0, lambda: None)

    for _ in range(1_000):
        await asyncio.sleep(0)

    assert 1_000 * TURN_S <= loop.time() - began_s < 0.1
    late.cancel()


async def test_the_clock_waits_for_a_job_in_another_thread() -> None:
    async with asyncio.timeout(0.001):
        assert await asyncio.to_thread(sum, range(1_000_000)) == 499_999_500_000


async def test_the_clock_waits_for_what_is_on_its_way_to_a_socket() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with asyncio.timeout(QUIET_S / 100):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"x")
            assert await reader.read() == b"x"
        writer.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR_S):
                await server.serve_forever()


def test_to_sleep_fails_a_unit_test() -> None:
    time.sleep(0)
    with pytest.raises(AssertionError, match="inject the clock"):
        time.sleep(0.001)


def test_a_module_without_an_event_loop_gets_a_clock_that_jumps() -> None:
    clock, seen = VirtualTime(), []
    clock.on_sleep = lambda: seen.append(clock.monotonic())

    clock.sleep(HOUR_S)

    assert seen == [HOUR_S]
