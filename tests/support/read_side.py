"""A read side for tests: a running consumer and the comparison with the write side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import nats

from projections.consumer import ConsumerOptions, ProjectionConsumer
from projections.queries import PLANNER_SETTINGS, Queries
from projections.store import ProjectionStore
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from tests.support.waiting import stop, until_true

_WALLETS = (
    "SELECT id, currency, scale, status, balance, pending_debit, pending_credit, version, "
    "reference_id, metadata::jsonb, created_at, updated_at, frozen, frozen_reason, "
    "overdraft_limit FROM wallets",
    "SELECT wallet_id, currency, scale, status, balance, pending_debit, pending_credit, version, "
    "reference_id, metadata::jsonb, created_at, updated_at, frozen, frozen_reason, "
    "overdraft_limit FROM wallet_projections",
)
_TRANSFERS = tuple(
    f"SELECT wallet_id, {id}, type, status, amount, reference_id, metadata::jsonb, failure_reason, "
    f"created_at, settled_at, created_version FROM {table}"
    for id, table in (("id", "transfers"), ("transfer_id", "transfer_projections"))
)


def options(**fields: int | float | str) -> ConsumerOptions:
    values: dict[str, Any] = {
        "stream": "WALLET_EVENTS",
        "group": 0,
        "groups": 1,
        "partitions": 4,
        "batch_max": 50,
        "poll_s": 0.2,
        "ack_wait_s": 30.0,
    }
    return ConsumerOptions(**values | fields)


@asynccontextmanager
async def running_consumer(
    database: str, nats_url: str, **fields: int | float | str
) -> AsyncIterator[ProjectionConsumer]:
    """Run a projection consumer in this block; the test fails if it ends early."""
    client = await nats.connect(nats_url)
    pool = await asyncpg.create_pool(database, min_size=0, max_size=2)
    consumer = ProjectionConsumer(
        client=client, store=ProjectionStore(pool), options=options(**fields)
    )
    running = asyncio.create_task(consumer.run())
    try:
        yield consumer
        assert not running.done(), running.exception()
    finally:
        await stop(running)
        await client.close()
        await pool.close()


@asynccontextmanager
async def queries_on(database: str) -> AsyncIterator[Queries]:
    pool = await asyncpg.create_pool(
        database, min_size=0, max_size=4, server_settings=PLANNER_SETTINGS
    )
    try:
        yield Queries(pool, timeout_s=5.0)
    finally:
        await pool.close()


async def differences(database: str) -> list[str]:
    """Rows that only one of the two sides has."""
    connection = await asyncpg.connect(database)
    found: list[str] = []
    try:
        # One snapshot, so that both sides are read at the same point in time.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for written, projected in (_WALLETS, _TRANSFERS):
                for side, other in ((written, projected), (projected, written)):
                    rows = await connection.fetch(f"({side}) EXCEPT ALL ({other})")
                    found += [f"only in {side.rpartition(' ')[2]}: {dict(row)}" for row in rows]
    finally:
        await connection.close()
    return found


async def until_equal(database: str) -> None:
    """Wait until the read side equals the write side; on time-out fail with the differences."""

    async def equal() -> bool:
        return not await differences(database)

    try:
        await until_true(equal)
    except TimeoutError:
        raise AssertionError(await differences(database)) from None


@asynccontextmanager
async def read_api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the HTTP API, whose reads work and whose writes have no shard."""
    async with queries_on(database) as queries:
        services: Any = Dependencies(
            settings=Settings(_env_file=None),
            dispatcher=None,  # type: ignore[arg-type]  # not reached
            queries=queries,
            probes={},
        )
        transport: Any = httpx.ASGITransport(app=create_application(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client
