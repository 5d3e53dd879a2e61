"""Connection poolers: those that the service can't work with are refused, with the reason."""

import asyncio
from typing import Literal

import pytest

from actors.journal.ports import JournalUnavailable
from actors.journal.postgres import CONNECTION_SETTINGS
from actors.journal.postgres_connection import ReconnectingConnection
from migrations.migrate import upgrade
from runtime.postgres.connect import Connector, connect
from runtime.postgres.errors import PoolerRefused
from serve_app.database_check import check_database
from tests.support.databases import in_own_loop
from tests.support.fake_pooler import pooler_before
from tests.support.postgres_proxy import proxy_before

CASES = [
    ("refuse", "newest", "unsupported startup parameter: "),
    ("drop", "newest", "it drops the settings sent at session start"),
    ("forward", "newest", "backend|prepared statement"),
    ("forward", "oldest", "backend|prepared statement"),
]


@pytest.mark.parametrize(("startup", "takes", "evidence"), CASES)
async def test_a_pooler_in_transaction_mode_is_refused(
    database: str,
    startup: Literal["refuse", "drop", "forward"],
    takes: Literal["newest", "oldest"],
    evidence: str,
) -> None:
    async with pooler_before(database, startup=startup, takes=takes) as dsn:
        with pytest.raises(PoolerRefused, match=evidence):
            await connect(dsn, timeout_s=5.0, settings={"jit": "off"})


@pytest.mark.parametrize("others", [1, 2, 5])
async def test_it_is_recognised_however_many_backends_it_has(database: str, others: int) -> None:
    async with pooler_before(database, startup="forward", takes="oldest") as dsn:
        for _ in range(others):
            with pytest.raises(PoolerRefused):
                await connect(dsn, timeout_s=5.0)


async def test_a_shard_says_why_it_can_not_write_through_one(database: str) -> None:
    async with pooler_before(database, startup="refuse") as dsn:
        shard_side = ReconnectingConnection(
            dsn, statement_timeout_s=5.0, connect_timeout_s=5.0, settings=CONNECTION_SETTINGS
        )
        with pytest.raises(JournalUnavailable, match="pooler that the service can't use"):
            await shard_side.connect()
        await shard_side.close()


async def test_a_replica_does_not_start_behind_one(database: str) -> None:
    async with pooler_before(database, startup="drop") as dsn:
        with pytest.raises(PoolerRefused):
            await check_database(Connector(dsn, timeout_s=5.0))


def test_migrations_are_refused_through_one(database: str) -> None:
    async def migrate() -> None:
        async with pooler_before(database, startup="drop") as dsn:
            await asyncio.to_thread(upgrade, dsn)

    with pytest.raises(PoolerRefused):
        in_own_loop(migrate())


async def test_a_proxy_that_forwards_bytes_is_none(database: str) -> None:
    async with proxy_before(database) as (_, dsn):
        connection = await connect(dsn, timeout_s=5.0, settings={"jit": "off"})
        assert await connection.fetchval("SHOW jit") == "off"
        connection.terminate()
