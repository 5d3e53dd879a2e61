"""DSNs with several hosts, against real servers: dead, hung and read-only ones."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest

from actors.journal.postgres import CONNECTION_SETTINGS, PostgresJournal
from actors.journal.postgres_connection import ReconnectingConnection
from actors.rpc.messages import Applied
from actors.shard.shard import Shard
from runtime.postgres.connect import Connector, Role, connect
from runtime.postgres.errors import NoHostAvailable
from runtime.settings import Settings
from tests.support import databases, servers
from tests.support.hosts import address_of, dsn_of, refusing_host, stopped, unanswering_host
from tests.support.waiting import stop
from tests.support.write_side import LIMITS, DetachedRelay, ShardUnderTest, debit

PASSWORD = "shared"
TARGET_S = 5.0
"""A service whose primary hangs writes again after this long, if another host is writable."""


@pytest.fixture(scope="module")
def two_servers() -> Iterator[tuple[str, str]]:
    """Embedded servers with one password. They are stopped by their pids, so never containers."""
    with (
        servers.postgres_server(use_docker=False) as first,
        servers.postgres_server(use_docker=False) as second,
    ):
        urls = []
        for url in (first, second):
            databases.execute(url, f"ALTER ROLE wallet PASSWORD '{PASSWORD}'")
            account = f"postgresql://wallet:{PASSWORD}@"
            urls.append(account + url.rpartition("@")[2])
            databases.make_template(urls[-1])
        yield urls[0], urls[1]


@pytest.fixture
def pair(two_servers: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """A migrated database of the same name on each."""
    first, second = two_servers
    with databases.copied_database(first) as one:
        name = one.rpartition("/")[2]
        databases.execute(second, f"CREATE DATABASE {name} TEMPLATE {databases.TEMPLATE}")
        try:
            yield one, databases.with_database(second, name)
        finally:
            databases.execute(second, f"DROP DATABASE {name} WITH (FORCE)")


def both(pair: tuple[str, str], options: str = "") -> str:
    return dsn_of(address_of(pair[0]), address_of(pair[1]), of=pair[0], options=options)


@asynccontextmanager
async def shard_of(dsn: str) -> AsyncIterator[ShardUnderTest]:
    """A shard with the service's own time-outs."""
    settings = Settings(_env_file=None)
    connection = ReconnectingConnection(
        dsn,
        statement_timeout_s=settings.database_timeout_s,
        connect_timeout_s=settings.database_connect_timeout_s,
        settings=CONNECTION_SETTINGS,
    )
    relay = DetachedRelay()
    shard = Shard(
        journal=PostgresJournal(connection),
        relay=relay,
        limits=LIMITS,
        now=lambda: datetime.now(UTC),
    )
    running = asyncio.create_task(shard.run())
    try:
        yield ShardUnderTest(shard, relay)
    finally:
        await stop(running)
        await connection.close()


@pytest.mark.parametrize("first", [unanswering_host, refusing_host])
async def test_a_dead_first_host_takes_only_its_share(database: str, first: object) -> None:
    assert callable(first)
    with first() as dead:
        connector = Connector(dsn_of(dead, address_of(database), of=database), timeout_s=2.0)
        began_s = time.monotonic()
        connection = await connector.connect()
        assert time.monotonic() - began_s < 1.9
        assert await connection.fetchval("SELECT 1") == 1
        connection.terminate()


async def test_hosts_in_the_query_are_tried_one_by_one_too(database: str) -> None:
    account, _, rest = database.rpartition("@")
    with unanswering_host() as dead:
        hosts = f"{dead[0]}:{dead[1]},{rest.partition('/')[0]}"
        dsn = f"{account}@/{rest.partition('/')[2]}?host={hosts}&sslmode=prefer"
        connection = await connect(dsn, timeout_s=2.0)
        assert await connection.fetchval("SELECT 1") == 1
        connection.terminate()


async def test_a_read_only_host_is_skipped_by_writers(pair: tuple[str, str]) -> None:
    first, second = pair
    name = first.rpartition("/")[2]
    databases.execute(first, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    writer = await connect(both(pair), timeout_s=4.0)
    reader = await connect(both(pair), timeout_s=4.0, role=Role.READER)
    for connection, url in ((writer, second), (reader, first)):
        assert await connection.fetchval("SELECT inet_server_port()") == address_of(url)[1]
        connection.terminate()
    with pytest.raises(NoHostAvailable, match="not a primary that accepts"):
        await connect(first, timeout_s=4.0)


async def test_a_shard_leaves_a_hung_primary_in_time(pair: tuple[str, str]) -> None:
    async with shard_of(both(pair)) as shard:
        wallet = await shard.create_wallet()
        with stopped(pair[0]):
            began_s = time.monotonic()
            lost = await shard.request(wallet, debit("1"))
            assert not isinstance(lost, Applied)
            await until_written(shard)
            assert time.monotonic() - began_s < TARGET_S


async def until_written(shard: ShardUnderTest) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await shard.create_wallet()
            except AssertionError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_pool_leaves_a_hung_primary_in_time(pair: tuple[str, str]) -> None:
    pool = Connector(both(pair), timeout_s=2.0, role=Role.READER, command_timeout_s=5.0).pool(
        max_size=4
    )
    async with pool:
        await asyncio.gather(*(pool.fetchval("SELECT pg_sleep(0.1)") for _ in range(4)))
        with stopped(pair[0]):
            began_s = time.monotonic()
            work = [pool.fetchval("SELECT 1") for _ in range(4)]
            lost = await asyncio.gather(*work, return_exceptions=True)
            assert [type(one) for one in lost] == [asyncpg.ConnectionDoesNotExistError] * 4
            assert await pool.fetchval("SELECT inet_server_port()") == address_of(pair[1])[1]
            assert time.monotonic() - began_s < TARGET_S


async def test_a_pool_with_one_hung_host_waits_no_longer_than_its_limits(
    pair: tuple[str, str],
) -> None:
    pool = Connector(pair[0], timeout_s=0.5, command_timeout_s=0.5).pool(max_size=1)
    async with pool:
        assert await pool.fetchval("SELECT 1") == 1
        with stopped(pair[0]):
            for _ in range(3):
                async with asyncio.timeout(TARGET_S):
                    with pytest.raises(TimeoutError):
                        await pool.fetchval("SELECT 1")
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_lock_wait_on_a_healthy_host_is_not_given_up(pair: tuple[str, str]) -> None:
    observer = await asyncpg.connect(pair[0])
    shard_side = ReconnectingConnection(
        both(pair), statement_timeout_s=20.0, connect_timeout_s=2.0, settings=CONNECTION_SETTINGS
    )
    try:
        await shard_side.connect()
        async with observer.transaction():
            await observer.execute("LOCK TABLE wallets IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(
                shard_side.read(lambda open_: open_.fetchval("SELECT count(*) FROM wallets"))
            )
            await asyncio.wait({asking}, timeout=2.5)
            assert not asking.done()
        assert await asking == 0
        assert shard_side.session == 1
    finally:
        await shard_side.close()
        await observer.close()
