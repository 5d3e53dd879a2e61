"""The two write-side stores, each behind the same two fixtures."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest
import pytest_asyncio

from actors.ports import Journal, Outbox
from actors.postgres_journal import PostgresJournal
from actors.postgres_outbox import PostgresOutbox
from tests.support import databases
from tests.support.memory_journal import MemoryJournal
from tests.support.write_side import connection

_EMPTY = "TRUNCATE wallets, wallet_references, transfers, wallet_events, idempotency_keys, outbox"


class Store(NamedTuple):
    """A journal and the outbox that belongs to it."""

    journal: Journal
    outbox: Outbox


@pytest.fixture(scope="module")
def _module_database(_template: str) -> Iterator[str]:
    with databases.copied_database(_template) as url:
        yield url


@pytest.fixture(params=["memory", "postgres"])
def _empty_database_or_none(request: pytest.FixtureRequest) -> str | None:
    if request.param == "memory":
        return None
    # One database a module, emptied for each test: three times as fast as one a test.
    database: str = request.getfixturevalue("_module_database")
    databases.execute(database, _EMPTY)
    return database


@pytest_asyncio.fixture
async def store(_empty_database_or_none: str | None) -> AsyncIterator[Store]:
    """An empty store; the test runs once on each kind."""
    database = _empty_database_or_none
    if database is None:
        memory = MemoryJournal()
        yield Store(memory, memory)
        return
    async with AsyncExitStack() as stack:
        journal = connection(database)
        outbox = connection(database, synchronous_commit="off")
        stack.push_async_callback(journal.close)
        stack.push_async_callback(outbox.close)
        yield Store(PostgresJournal(journal), PostgresOutbox(outbox, chores=outbox))
