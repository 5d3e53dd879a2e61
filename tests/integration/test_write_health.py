"""A shard's write health against a Postgres that responds but can't write."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import pytest

from actors.journal.postgres import CONNECTION_SETTINGS, PostgresJournal
from actors.journal.postgres_connection import ReconnectingConnection
from actors.journal.postgres_probe import PROBE_SETTINGS, TABLES, PostgresWriteProbe
from actors.journal.probe_ports import ProbeFailed
from actors.shard.write_health import MonitoredJournal, WriteHealth, WriteHealthLimits
from tests.support.ids import new_id
from tests.support.waiting import stop, until, until_true
from tests.support.writes import CommitRequestBuilder
from wallet.ids import WalletId

LIMITS = WriteHealthLimits(write_probe_s=0.05, write_ready_s=0.3)

Hindrance = Callable[[asyncpg.Connection], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def open_probe(dsn: str, *, timeout_s: float = 30.0) -> AsyncIterator[PostgresWriteProbe]:
    connection = ReconnectingConnection(
        dsn, statement_timeout_s=timeout_s, connect_timeout_s=5.0, settings=PROBE_SETTINGS
    )
    try:
        yield PostgresWriteProbe(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[WriteHealth]:
    """A shard's write health when it has only probes."""
    async with open_probe(dsn) as probe:
        health = WriteHealth(probe, LIMITS, asyncio.get_running_loop().time)
        task = asyncio.create_task(health.run())
        try:
            yield health
        finally:
            await stop(task)


@asynccontextmanager
async def operator(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def standby_unavailable(admin: asyncpg.Connection) -> AsyncIterator[None]:
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await admin.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await admin.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def locked_table(admin: asyncpg.Connection) -> AsyncIterator[None]:
    async with admin.transaction():
        await admin.execute("LOCK TABLE transfers IN SHARE MODE")
        yield


PROBES = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'wallet-probe'"
)


async def backends(observer: asyncpg.Connection) -> int:
    return len(await observer.fetch(PROBES))


async def waiting(observer: asyncpg.Connection, wait: str) -> set[int]:
    """The backends of probes with this wait event."""
    rows = await observer.fetch(f"{PROBES} AND $1 IN (wait_event_type, wait_event)", wait)
    return {row["pid"] for row in rows}


async def another_waits(observer: asyncpg.Connection, wait: str, before: set[int]) -> set[int]:
    """Wait for a backend that is not in ``before``; returns all that wait."""

    async def so() -> bool:
        return bool(await waiting(observer, wait) - before)

    await until_true(so)
    return await waiting(observer, wait)


async def test_a_synchronous_standby_is_noticed_when_it_goes_and_returns(
    dsn: str,
) -> None:
    async with operator(dsn) as admin, watched(dsn) as health:
        await until(lambda: health.problem() is None)

        async with standby_unavailable(admin):
            await until(lambda: "has waited" in (health.problem() or ""))
            assert await admin.fetchval("SELECT 1") == 1  # Postgres still responds.
            assert await backends(admin) == 1
        await until(lambda: health.problem() is None)


async def test_refusals_that_are_answered_do_not_hide_that_no_write_is_confirmed(
    dsn: str,
) -> None:
    connection = ReconnectingConnection(
        dsn, statement_timeout_s=30.0, connect_timeout_s=5.0, settings=CONNECTION_SETTINGS
    )
    creates = CommitRequestBuilder()
    wallet = creates.create(WalletId(new_id()))
    refuses = CommitRequestBuilder(wallet).write
    async with operator(dsn) as admin, watched(dsn) as health:
        journal = MonitoredJournal(
            PostgresJournal(connection), health, asyncio.get_running_loop().time
        )
        await journal.commit(creates.write)
        async with standby_unavailable(admin):

            async def is_known() -> bool:
                await journal.commit(refuses)
                return "a probe has waited" in (health.problem() or "")

            await until_true(is_known)
            await journal.commit(refuses)
            assert health.problem() is not None
    await connection.close()


async def test_a_server_that_takes_no_writes_is_noticed(dsn: str) -> None:
    name = dsn.rpartition("/")[2]
    async with operator(dsn) as admin:
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with watched(dsn) as health:
            # Such a session is not even opened: another host may take writes.
            await until(lambda: "not a primary that accepts" in (health.problem() or ""))
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await until(lambda: health.problem() is None)


async def test_a_table_that_is_locked_is_noticed_and_so_is_its_release(dsn: str) -> None:
    async with operator(dsn) as admin, watched(dsn) as health:
        await until(lambda: health.problem() is None)
        async with locked_table(admin):
            await until(lambda: "has waited" in (health.problem() or ""))
        await until(lambda: health.problem() is None)


@pytest.mark.parametrize(
    ("hindrance", "wait"),
    [(locked_table, "Lock"), (standby_unavailable, "SyncRep")],
    ids=["locked table", "standby unavailable"],
)
async def test_probes_that_are_given_up_do_not_pile_up_on_the_server(
    dsn: str, hindrance: Hindrance, wait: str
) -> None:
    given_up: set[int] = set()
    async with (
        operator(dsn) as hinders,
        operator(dsn) as observer,
        hindrance(hinders),
        open_probe(dsn) as probe,
    ):
        for _ in range(5):
            writing = asyncio.create_task(probe.write(allocating=False))
            given_up |= await another_waits(observer, wait, given_up)
            assert await backends(observer) <= 2
            await stop(writing)


async def test_a_probe_that_meets_a_locked_table_is_ended_by_the_server(dsn: str) -> None:
    async with (
        operator(dsn) as hinders,
        operator(dsn) as observer,
        locked_table(hinders),
        open_probe(dsn, timeout_s=0.5) as probe,
    ):
        with pytest.raises(ProbeFailed, match=r"^55P03 "):
            await probe.write(allocating=True)
        writing = asyncio.create_task(probe.write(allocating=True))
        await another_waits(observer, "Lock", set())
        await stop(writing)  # Even if no client connects after that.

        async def none_is_left() -> bool:
            return await backends(observer) == 0

        await until_true(none_is_left)


async def test_a_probe_that_no_standby_confirms_in_time_has_failed(dsn: str) -> None:
    async with (
        operator(dsn) as admin,
        standby_unavailable(admin),
        open_probe(dsn, timeout_s=0.3) as probe,
    ):
        with pytest.raises(ProbeFailed, match="not confirmed in time"):
            await probe.write(allocating=False)


async def test_a_probe_whose_wait_for_a_standby_was_cancelled_has_failed(dsn: str) -> None:
    async with operator(dsn) as admin, standby_unavailable(admin), open_probe(dsn) as probe:
        writing = asyncio.create_task(probe.write(allocating=False))
        await admin.fetch(
            "SELECT pg_cancel_backend(pid) FROM unnest($1::int[]) AS pid",
            list(await another_waits(admin, "SyncRep", set())),
        )
        with pytest.raises(ProbeFailed, match=r"^01000 "):
            await writing


async def test_a_probe_that_gets_no_connection_has_the_servers_reason(dsn: str) -> None:
    async with open_probe(f"{dsn}_missing") as probe:
        with pytest.raises(ProbeFailed, match=r"^3D000 "):
            await probe.write(allocating=False)


async def test_a_probe_leaves_nothing_behind_also_if_it_gets_space(dsn: str) -> None:
    async with operator(dsn) as admin, open_probe(dsn) as probe:
        for allocating in (True, False, True):
            await probe.write(allocating=allocating)
        for table in ("wallets", "transfers", "wallet_events", "outbox", "idempotency_keys"):
            assert await admin.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await admin.fetchval("SELECT to_regclass('wallet_probe')") is None


async def test_a_probe_asks_for_every_table_that_a_batch_writes_to(dsn: str) -> None:
    async with operator(dsn) as admin:
        sources = await admin.fetch("SELECT prosrc FROM pg_proc WHERE proname = 'commit_batch'")
    source = max((row["prosrc"] for row in sources), key=len)  # The other one calls this one.
    written = re.findall(r"(?:INSERT INTO|UPDATE (?!;)|DELETE FROM)\s*(\w+)", source)
    assert set(TABLES) == set(written)
