"""Commits that Postgres does not finish: bounded in time and number, with an honest response."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from actors.journal.ports import JournalUnavailable, OutcomeUnknown, SessionLost
from actors.journal.postgres import CONNECTION_SETTINGS, PostgresJournal
from actors.journal.postgres_connection import ReconnectingConnection
from actors.rpc.messages import Applied, Failure
from actors.shard.shard import Shard
from tests.support.ids import new_id
from tests.support.results import body
from tests.support.waiting import stop, until_true
from tests.support.write_side import LIMITS, DetachedRelay, ShardUnderTest, credit, debit
from tests.support.writes import CommitRequestBuilder
from wallet.ids import WalletId

_TIMEOUT_S = 0.4
_NAME = "wallet-test-shard"

_WAITS_FOR_STANDBY = "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $1"
_BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = $1"
)
_WAITING_FOR_STANDBY = f"{_BACKENDS} AND wait_event = 'SyncRep'"


def short_timeout(database: str) -> ReconnectingConnection:
    return ReconnectingConnection(
        database,
        statement_timeout_s=_TIMEOUT_S,
        connect_timeout_s=2.0,
        settings={
            **CONNECTION_SETTINGS,
            "application_name": _NAME,
            "synchronous_commit": "on",  # It is off on the tests' server.
        },
    )


@asynccontextmanager
async def short_timeout_shard(database: str) -> AsyncIterator[ShardUnderTest]:
    connection = short_timeout(database)
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


@pytest.fixture
async def observer(database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@asynccontextmanager
async def standby_unavailable(
    database: str, observer: "asyncpg.Connection[Any]"
) -> AsyncIterator[None]:
    async def configured(names: str) -> None:
        await observer.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await observer.execute("SELECT pg_reload_conf()")

        async def seen() -> bool:
            return bool(await observer.fetchval("SHOW synchronous_standby_names") == names)

        await until_true(seen)

    await configured("away")
    await _until_commits_wait(database, observer)
    try:
        yield
    finally:
        await configured("")


async def _until_commits_wait(database: str, observer: "asyncpg.Connection[Any]") -> None:
    """The server's checkpointer turns the waiting on, at some time after sessions see the name."""
    connection = await asyncpg.connect(database, server_settings={"synchronous_commit": "on"})
    pid = connection.get_server_pid()

    async def waits() -> bool:
        write = "SELECT pg_logical_emit_message(true, 'test', '')"
        commit = asyncio.create_task(connection.execute(write))
        while not commit.done():
            if await observer.fetchval(_WAITS_FOR_STANDBY, pid):
                await observer.execute("SELECT pg_cancel_backend($1)", pid)
                await commit
                return True
        return False

    try:
        await until_true(waits)
    finally:
        await connection.close()


@asynccontextmanager
async def locked_table(observer: "asyncpg.Connection[Any]", table: str) -> AsyncIterator[None]:
    async with observer.transaction():
        await observer.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def most_backends(observer: "asyncpg.Connection[Any]", work: "asyncio.Task[Any]") -> int:
    most = 0
    while not work.done():
        await asyncio.wait({work}, timeout=0.02)
        most = max(most, int(await observer.fetchval(_BACKENDS, _NAME)))
    return most


async def request_often(shard: ShardUnderTest, wallet: WalletId, times: int) -> list[str]:
    """Sequential requests; returns `applied` of each failure, or the result."""
    outcomes: list[str] = []
    for _ in range(times):
        reply = await shard.request(wallet, debit("1"), timeout_s=1.5 * _TIMEOUT_S)
        outcomes.append(reply.applied if isinstance(reply, Failure) else "done")
    return outcomes


@pytest.mark.parametrize("table", ["wallets", "outbox"])
async def test_a_locked_table_is_an_orderly_no_and_holds_no_backends(
    database: str, observer: "asyncpg.Connection[Any]", table: str
) -> None:
    async with short_timeout_shard(database) as shard, asyncio.timeout(60):
        wallet = await shard.create_wallet()
        watcher = await asyncpg.connect(database)
        async with locked_table(observer, table):
            asking = asyncio.create_task(request_often(shard, wallet, 8))
            assert await most_backends(watcher, asking) <= 2
        assert asking.result() == ["no"] * 8
        await watcher.close()
        assert body(await shard.request(wallet, debit("1")))["wallet"]["version"] == 2


async def test_a_commit_that_no_standby_has_is_never_a_yes_and_piles_nothing_up(
    database: str, observer: "asyncpg.Connection[Any]"
) -> None:
    async with short_timeout_shard(database) as shard, asyncio.timeout(60):
        wallet = await shard.create_wallet()
        async with standby_unavailable(database, observer):
            asking = asyncio.create_task(request_often(shard, wallet, 8))
            assert await most_backends(observer, asking) <= 3
            assert "done" not in asking.result()
            assert asking.result()[0] == "unknown"
            # It is visible by now but not replicated, so its retry is not acknowledged either.
            repeated = await shard.request(wallet, debit("1"), key="k", timeout_s=_TIMEOUT_S)
            assert isinstance(repeated, Failure)
            again = await shard.request(wallet, debit("1"), key="k", timeout_s=_TIMEOUT_S)
            assert isinstance(again, Failure)
        answer = body(await shard.request(wallet, debit("1"), key="k"))
        assert answer["status"] == "completed"


async def test_a_backend_that_was_given_up_is_ended_by_the_next_connection(
    database: str, observer: "asyncpg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    # The driver sends the server a cancel request on time-out. That message may be lost.
    monkeypatch.setattr(asyncpg.Connection, "_cancel_current_command", lambda *_: None)
    connection = short_timeout(database)
    journal = PostgresJournal(connection)
    session = await connection.connect()
    making = CommitRequestBuilder()
    making.create(WalletId(new_id()))
    async with standby_unavailable(database, observer):
        with pytest.raises(OutcomeUnknown):
            await journal.commit(making.write)
        assert await observer.fetchval(_WAITING_FOR_STANDBY, _NAME) == 1
        assert await connection.connect() == session + 1
        assert await observer.fetchval(_BACKENDS, _NAME) == 1
    await connection.close()


async def test_a_cancelled_wait_for_a_standby_is_an_unknown_outcome(
    database: str, observer: "asyncpg.Connection[Any]"
) -> None:
    connection = ReconnectingConnection(
        database,
        statement_timeout_s=30.0,
        connect_timeout_s=2.0,
        settings={"application_name": _NAME, "synchronous_commit": "on"},
    )
    journal = PostgresJournal(connection)
    await connection.connect()
    making = CommitRequestBuilder()
    making.create(WalletId(new_id()))
    async with standby_unavailable(database, observer), asyncio.timeout(30):
        commit = asyncio.create_task(_committed(journal, making))

        async def waits() -> bool:
            return bool(await observer.fetchval(_WAITING_FOR_STANDBY, _NAME))

        await until_true(waits)
        await observer.fetchval(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = $1", _NAME
        )
        with pytest.raises(OutcomeUnknown, match="01000"):
            await commit
    await connection.close()


async def _committed(journal: PostgresJournal, making: CommitRequestBuilder) -> None:
    await journal.commit(making.write)


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(database: str) -> None:
    connection = short_timeout(database)
    session = await connection.connect()
    with pytest.raises(JournalUnavailable, match="57014"):
        await connection.read(lambda one: one.execute("SELECT pg_sleep(5)"))
    assert connection.session == session, "the connection is still usable"
    await connection.close()


async def test_a_session_that_was_ended_by_the_server_does_not_come_back(
    database: str, observer: "asyncpg.Connection[Any]"
) -> None:
    connection = short_timeout(database)
    session = await connection.connect()
    await observer.fetchval(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = $1",
        _NAME,
    )

    async def ended() -> bool:
        return connection.session is None

    await until_true(ended)
    with pytest.raises(SessionLost):
        await connection.write(lambda one: one.execute("SELECT 1"), session=session)
    assert await connection.connect() == session + 1
    await connection.close()


async def test_money_that_the_database_forgot_is_not_made_again(
    database: str, observer: "asyncpg.Connection[Any]"
) -> None:
    """As after the promotion of a standby that lacks the last commit: version 3 is lost, another
    owner writes a different version 3, and the first owner still caches its own."""
    async with short_timeout_shard(database) as remembers, short_timeout_shard(database) as writes:
        wallet = await remembers.create_wallet()
        await remembers.request(wallet, debit("600"))
        await remembers.request(wallet, debit("900"))
        for statement in (
            "DELETE FROM transfers WHERE wallet_id = $1 AND created_version = 3",
            "DELETE FROM wallet_events WHERE wallet_id = $1 AND version = 3",
            "DELETE FROM outbox WHERE wallet_id = $1 AND first_version = 3",
            "UPDATE wallets SET version = 2, balance = 60000 WHERE id = $1",
        ):
            await observer.execute(statement, wallet)
        await observer.fetchval(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE application_name = $1",
            _NAME,
        )
        assert body(await writes.request(wallet, debit("300")))["wallet"]["balance"] == "900.00"
        after = body(await remembers.request(wallet, credit("1")))
    assert after["wallet"]["balance"] == "899.00"
    assert await observer.fetchval("SELECT balance FROM wallets WHERE id = $1", wallet) == 89_900


async def test_a_refusal_that_no_standby_has_is_not_answered(
    database: str, observer: "asyncpg.Connection[Any]"
) -> None:
    """It would hold for the first delivery on this server only."""
    async with short_timeout_shard(database) as shard, asyncio.timeout(60):
        wallet = await shard.create_wallet()
        command = credit("10")
        async with standby_unavailable(database, observer):
            for attempt in (2, 3):
                reply = await shard.request(
                    wallet, command, attempt=attempt, timeout_s=3 * _TIMEOUT_S
                )
                assert isinstance(reply, Failure)
                assert reply.applied == "unknown"
        refused = await shard.request(wallet, command, attempt=4)
        assert body(refused)["code"] == "insufficient_funds"


async def test_other_warnings_say_nothing_about_a_commit(database: str) -> None:
    connection = short_timeout(database)
    warn = "DO $$ BEGIN RAISE WARNING 'database must be vacuumed'; END $$"
    await connection.write(lambda one: one.execute(warn))
    await connection.close()


async def test_a_locked_row_refuses_its_own_wallet_and_no_other(
    database: str, observer: "asyncpg.Connection[Any]"
) -> None:
    async with short_timeout_shard(database) as shard, asyncio.timeout(60):
        wallets = [await shard.create_wallet() for _ in range(6)]
        async with observer.transaction():
            await observer.execute("SELECT 1 FROM wallets WHERE id = $1 FOR UPDATE", wallets[2])
            replies = await asyncio.gather(
                *(shard.request(wallet, debit("1")) for wallet in wallets for _ in range(2))
            )
            applied = [reply.applied if isinstance(reply, Failure) else "yes" for reply in replies]
            assert applied == [
                "no" if one == wallets[2] else "yes" for one in wallets for _ in "ab"
            ]
            assert shard.shard.journal_ready
            # It blocks nothing again: for a short time requests are refused before any query.
            commits = shard.shard.counts["batches"]
            again = await shard.request(wallets[2], debit("1"))
            assert isinstance(again, Failure)
            assert "locked" in again.detail
            assert shard.shard.counts["batches"] == commits

        async def taken() -> bool:
            return isinstance(await shard.request(wallets[2], debit("1")), Applied)

        await until_true(taken)
