"""A shard's process that is stopped (SIGSTOP): its kernel still accepts data."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from actors.rpc import failover
from actors.rpc.client import RpcClient, connect
from actors.rpc.failover import FailoverTransport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.server import RpcEndpoint
from actors.rpc.transport import ShardUnreachable
from actors.shard.process import limits_from
from runtime.settings import Settings
from tests.support.waiting import until_true

ECHO = """
import asyncio, sys
import msgspec
from actors.rpc.server import RpcServer

async def main():
    async def answer(payload):
        return sys.argv[1].encode()
    address = await RpcServer(answer, lambda: None).start("127.0.0.1")
    print(msgspec.json.encode(address).decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
PROMISED_S = 3.0
"""Maximum delay that a paused shard causes for a client."""
WAIT_MAX_S = 20.0
"""Margin for a slow machine."""


@asynccontextmanager
async def shard_process(name: str) -> AsyncIterator[tuple[int, RpcEndpoint]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ECHO, name, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        yield process.pid, msgspec.json.decode(line, type=RpcEndpoint)
    finally:
        process.kill()
        await process.communicate()


def test_the_bounds_keep_the_promise() -> None:
    heartbeat = limits_from(Heartbeat, Settings(_env_file=None))
    given_up_s = heartbeat.shard_ping_s * (heartbeat.shard_pings_missed_max + 1)

    assert given_up_s + failover.CONNECT_GRACE_S + failover.RECONNECT_INTERVAL_S < PROMISED_S


async def test_calls_leave_a_paused_shard_and_return_when_it_goes_on() -> None:
    heartbeat = limits_from(Heartbeat, Settings(_env_file=None))
    async with shard_process("one") as (pid, one), shard_process("two") as (_, two):
        channels: list[RpcClient] = []

        async def connect_to(shard: int) -> RpcClient:
            channels.append(await connect((one, two)[shard], heartbeat))
            return channels[-1]

        shards = FailoverTransport(connect_to, shard_count=2)

        async def answers(expected: bytes) -> bool:
            return await shards.call(0, b"x") == expected

        await until_true(lambda: answers(b"one"))
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(WAIT_MAX_S):
            with pytest.raises(ShardUnreachable, match="does not answer pings") as lost:
                await shards.call(0, b"x")
            assert lost.value.delivered
            assert await answers(b"two")

        os.kill(pid, signal.SIGCONT)
        await until_true(lambda: answers(b"one"))
        for channel in channels:
            channel.close()
