"""The two write-side stores behind common fixtures."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, Protocol

import asyncpg
import pytest
import pytest_asyncio

from actors.journal.expiry_ports import Expiries
from actors.journal.memory import (
    DirectConnection,
    MemoryBackfill,
    MemoryConnection,
    MemoryExpiries,
    MemoryJournal,
    MemoryOutbox,
)
from actors.journal.memory_database import MemoryDatabase
from actors.journal.memory_transactions import MemoryTransaction
from actors.journal.ports import CommitRequest, EventRange, Journal, Outbox, StreamBackfill
from actors.journal.postgres import COMMIT_BATCH, PostgresJournal
from actors.journal.postgres_columns import commit_arguments
from actors.journal.postgres_expiries import PostgresExpiries
from actors.outbox.postgres import PostgresOutbox
from actors.outbox.postgres_backfill import PostgresBackfill
from tests.support import databases
from tests.support.waiting import until, until_true
from tests.support.write_side import connection
from wallet.ids import WalletId

_EMPTY = (
    "TRUNCATE wallets, wallet_references, transfers, wallet_events, idempotency_keys, outbox, "
    "refused_deliveries, wallet_changes, transfer_expiries, stream_incarnations, stream_marks, "
    "forked_wallets"
)
_QUARANTINE = """
INSERT INTO forked_wallets (wallet_id, common_version, common_hash) VALUES ($1, 1, '')
"""
_OLDER = """
UPDATE outbox SET created_at = created_at - make_interval(secs => $4)
WHERE (wallet_id, first_version, last_version) = ($1::uuid, $2, $3)
"""


class OpenCommit(Protocol):
    """A `commit_batch` that has done everything but commit."""

    async def commit(self) -> None: ...

    async def roll_back(self) -> None: ...


class Backfill(NamedTuple):
    """A relay's backfill lock, and a way to break its connection."""

    port: StreamBackfill
    disconnect: Callable[[], Awaitable[None]]


class Store(NamedTuple):
    """A journal with its outbox, and concurrent access by other writers."""

    journal: Journal
    outbox: Outbox
    expiries: Expiries
    begin: Callable[[CommitRequest], Awaitable[OpenCommit]]
    """An open transaction of another writer."""
    someone_waits: Callable[[], Awaitable[None]]
    """Wait until a call to the journal waits for an open transaction."""
    backfill: Callable[[], Backfill]
    """Another relay with its own connection."""
    quarantine: Callable[[WalletId], Awaitable[None]]
    """Marks a wallet's history as forked."""
    age: Callable[[EventRange, float], Awaitable[None]]
    """Makes an outbox row older, by seconds."""


@pytest.fixture(scope="module")
def _module_database(_template: str) -> Iterator[str]:
    with databases.copied_database(_template) as url:
        yield url


@pytest.fixture(params=["memory", "postgres"])
def _empty_database_or_none(request: pytest.FixtureRequest) -> str | None:
    if request.param == "memory":
        return None
    # One database per module, emptied for each test: three times as fast as one per test.
    database: str = request.getfixturevalue("_module_database")
    databases.execute(database, _EMPTY)
    return database


@pytest_asyncio.fixture
async def store(_empty_database_or_none: str | None) -> AsyncIterator[Store]:
    """An empty store; the test runs once per kind."""
    database = _empty_database_or_none
    if database is None:
        yield store_in_memory(MemoryDatabase())
        return
    async with AsyncExitStack() as stack:
        journal = connection(database)
        outbox = connection(database, synchronous_commit="off")
        stack.push_async_callback(journal.close)
        stack.push_async_callback(outbox.close)
        yield Store(
            PostgresJournal(journal),
            PostgresOutbox(outbox, chores=outbox, stream="STREAM"),
            PostgresExpiries(outbox),
            partial(_begin_in_postgres, stack, database),
            partial(_until_someone_waits, database),
            partial(_backfill_in_postgres, stack, database),
            partial(_quarantine_in_postgres, database),
            partial(_age_in_postgres, database),
        )


def store_in_memory(
    database: MemoryDatabase, connect: Callable[[], MemoryConnection] = DirectConnection
) -> Store:
    """A store on the in-memory database, over connections from ``connect``."""

    async def begin(batch: CommitRequest) -> OpenCommit:
        transaction = database.transaction(batch)
        assert transaction.advance() is None, "the wallet must not be locked"
        return _InMemory(transaction)

    async def someone_waits() -> None:
        await until(lambda: any(one.has_waiters for one in database.locks.values()))

    async def quarantine(wallet_id: WalletId) -> None:
        database.forked.add(wallet_id)

    async def age(row: EventRange, seconds: float) -> None:
        database._written_at[row] -= seconds

    def backfill() -> Backfill:
        client = MemoryBackfill(database, connect())

        async def disconnect() -> None:
            client.end_session()

        return Backfill(client, disconnect)

    return Store(
        MemoryJournal(database, connect()),
        MemoryOutbox(database, connect()),
        MemoryExpiries(database, connect()),
        begin,
        someone_waits,
        backfill,
        quarantine,
        age,
    )


class _InMemory:
    def __init__(self, transaction: MemoryTransaction) -> None:
        self._transaction = transaction

    async def commit(self) -> None:
        self._transaction.commit()

    async def roll_back(self) -> None:
        self._transaction.roll_back()


class _InPostgres:
    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    async def commit(self) -> None:
        await self._transaction.commit()

    async def roll_back(self) -> None:
        await self._transaction.rollback()


async def _quarantine_in_postgres(database: str, wallet_id: WalletId) -> None:
    writer = await asyncpg.connect(database)
    await writer.execute(_QUARANTINE, wallet_id)
    await writer.close()


async def _age_in_postgres(database: str, row: EventRange, seconds: float) -> None:
    writer = await asyncpg.connect(database)
    await writer.execute(_OLDER, *row, seconds)
    await writer.close()


def _backfill_in_postgres(stack: AsyncExitStack, database: str) -> Backfill:
    link = connection(database)
    stack.push_async_callback(link.close)
    return Backfill(PostgresBackfill(link, stream="STREAM"), link.close)


async def _begin_in_postgres(
    stack: AsyncExitStack, database: str, batch: CommitRequest
) -> OpenCommit:
    writer = await asyncpg.connect(database)
    stack.push_async_callback(writer.close)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute(COMMIT_BATCH, *commit_arguments(batch))
    return _InPostgres(transaction)


async def _until_someone_waits(database: str) -> None:
    observer = await asyncpg.connect(database)

    async def waits() -> bool:
        return bool(await observer.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    try:
        await until_true(waits)
    finally:
        await observer.close()
