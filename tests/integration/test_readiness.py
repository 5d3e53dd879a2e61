"""/readyz and a real shard process while Postgres responds but accepts no writes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import asyncpg
import msgspec

from actors.rpc.client import RpcClient, connect
from actors.rpc.failover import FailoverTransport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.server import RpcEndpoint
from actors.shard.statistics import ShardStatistics
from projections.queries import Queries
from runtime.settings import Settings
from serve_app.readiness import ReadinessChecks
from tests.support.waiting import until_true

SHARD = """
import asyncio
import msgspec
from actors.shard.process import ShardProcess
from runtime.settings import Settings

async def main():
    shard = ShardProcess(0, Settings())
    print(msgspec.json.encode(await shard.listen("127.0.0.1")).decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
QUICK = Heartbeat(shard_ping_s=0.05, shard_pings_missed_max=100)
SETTINGS = Settings(_env_file=None, shard_count=1)


@asynccontextmanager
async def shard_process(dsn: str, nats_url: str) -> AsyncIterator[RpcEndpoint]:
    settings = {
        "WALLET_DATABASE_URL": dsn,
        "WALLET_NATS_URL": nats_url,
        "WALLET_SHARD_COUNT": "1",
        "WALLET_LOG_LEVEL": "ERROR",
        "WALLET_WRITE_PROBE_S": "0.05",
        "WALLET_WRITE_READY_S": "0.3",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SHARD, env=os.environ | settings, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield msgspec.json.decode(line, type=RpcEndpoint)
    finally:
        process.kill()
        await process.communicate()


class Shards:
    """The shard as a replica reaches it, without Ray."""

    def __init__(self, address: RpcEndpoint) -> None:
        self._address = address
        self.channels: list[RpcClient] = []
        self._shards = FailoverTransport(self._connect, shard_count=1)

    async def _connect(self, _shard: int) -> RpcClient:
        self.channels.append(await connect(self._address, QUICK))
        return self.channels[-1]

    async def statistics(self, shard: int) -> ShardStatistics:
        raise NotImplementedError(shard)  # normally resolved by Ray

    def reaches_a_shard(self) -> bool:
        self._shards.connect()
        return self._shards.reaches_a_shard()

    async def writing_problem(self, shard: int) -> str | None:
        return await self._shards.writing_problem(shard)


async def test_a_replica_is_ready_exactly_while_its_shards_write(dsn: str, nats_url: str) -> None:
    admin = await asyncpg.connect(dsn)
    async with shard_process(dsn, nats_url) as address:
        shards = Shards(address)
        probes = ReadinessChecks(SETTINGS, cast("Queries", None), shards)

        async def is_ready() -> bool:
            return (await probes.shards()).ready

        async def is_not_ready() -> bool:
            return not await is_ready()

        await until_true(is_ready)
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            await admin.execute("SELECT pg_reload_conf()")
            await until_true(is_not_ready)
            assert "has waited" in (await probes.shards()).detail
        finally:
            await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await admin.execute("SELECT pg_reload_conf()")
        await until_true(is_ready)
        for channel in shards.channels:
            channel.close()
    await admin.close()
