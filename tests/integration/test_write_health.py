"""What a shard says of its writes, against a Postgres that can't write though it answers."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from actors.postgres_probe import TABLES, PostgresWriteProbe
from actors.write_health import WriteHealth, WriteHealthLimits
from tests.support import databases, servers
from tests.support.waiting import stop, until, until_true

LIMITS = WriteHealthLimits(write_probe_s=0.05, write_ready_s=0.3)


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A server of this file's own: its settings are changed."""
    with servers.postgres_server(use_docker=servers.docker_engine_answers()) as url:
        databases.make_template(url)
        yield url


@pytest.fixture
def dsn(own_server: str) -> Iterator[str]:
    with databases.copied_database(own_server) as url:
        name = url.rpartition("/")[2]
        databases.execute(url, f"ALTER DATABASE {name} SET synchronous_commit = on")
        yield url


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[WriteHealth]:
    """A shard's view of its writes, which are only probes."""
    probe = PostgresWriteProbe(dsn, connect_timeout_s=5.0)
    health = WriteHealth(probe, LIMITS, asyncio.get_running_loop().time)
    task = asyncio.create_task(health.run())
    try:
        yield health
    finally:
        await stop(task)
        probe.close()


@asynccontextmanager
async def operator(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def backends(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wallet-probe'"
    )
    return found


async def test_a_synchronous_standby_that_is_away_is_noticed_and_so_is_its_return(
    dsn: str,
) -> None:
    async with operator(dsn) as admin, watched(dsn) as health:
        await until(lambda: health.problem() is None)

        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            await admin.execute("SELECT pg_reload_conf()")
            await until(lambda: "has waited" in (health.problem() or ""))
            assert await admin.fetchval("SELECT 1") == 1  # Postgres answers all the same.
            assert await backends(admin) == 1
        finally:
            await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await admin.execute("SELECT pg_reload_conf()")

        await until(lambda: health.problem() is None)


async def test_a_server_that_takes_no_writes_is_noticed(dsn: str) -> None:
    name = dsn.rpartition("/")[2]
    async with operator(dsn) as admin:
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with watched(dsn) as health:
            await until(lambda: (health.problem() or "").startswith("25006"))
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await until(lambda: health.problem() is None)


async def test_a_table_that_is_locked_is_noticed_and_so_is_its_release(dsn: str) -> None:
    async with operator(dsn) as admin, watched(dsn) as health:
        await until(lambda: health.problem() is None)
        async with admin.transaction():
            await admin.execute("LOCK TABLE transfers IN SHARE MODE")
            await until(lambda: "has waited" in (health.problem() or ""))
        await until(lambda: health.problem() is None)


async def test_a_probe_that_is_cancelled_leaves_no_backend(dsn: str) -> None:
    async with operator(dsn) as admin:
        async with admin.transaction():
            await admin.execute("LOCK TABLE wallets IN SHARE MODE")
            probe = PostgresWriteProbe(dsn, connect_timeout_s=5.0)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await probe.write(allocating=True)

        async def all_ended() -> bool:
            return await backends(admin) == 0

        await until_true(all_ended)


async def test_a_probe_leaves_nothing_behind_also_if_it_gets_space(dsn: str) -> None:
    probe = PostgresWriteProbe(dsn, connect_timeout_s=5.0)
    for allocating in (True, False, True):
        await probe.write(allocating=allocating)
    async with operator(dsn) as admin:
        for table in ("wallets", "transfers", "wallet_events", "outbox", "idempotency_keys"):
            assert await admin.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await admin.fetchval("SELECT to_regclass('wallet_probe')") is None
    probe.close()


async def test_a_probe_asks_for_every_table_that_a_batch_writes_to(dsn: str) -> None:
    async with operator(dsn) as admin:
        sources = await admin.fetch("SELECT prosrc FROM pg_proc WHERE proname = 'commit_batch'")
    source = max((row["prosrc"] for row in sources), key=len)  # The other one calls this one.
    written = re.findall(r"(?:INSERT INTO|UPDATE (?!;)|DELETE FROM)\s*(\w+)", source)
    assert set(TABLES) == set(written)
