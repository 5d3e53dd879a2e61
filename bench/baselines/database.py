"""A separate database for the baselines: same server, the service's tables."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import uuid6

from migrations.migrate import upgrade

_SEED = """
INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
    created_at, updated_at)
VALUES ($1::uuid, 'USD', 2, 0, 0, 0, 1, now(), now())
"""
_SEED_EVENT = """
INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
    pending_credit)
VALUES ($1::uuid, 1, 'wallet.created', now(), 0, 0, 0)
"""

# Rows of one wallet that must exist once per transfer; and its balance.
_FOUND = """
SELECT (SELECT count(*) FROM transfers WHERE wallet_id = $1::uuid) AS transfers,
    (SELECT count(*) - 1 FROM wallet_events WHERE wallet_id = $1::uuid) AS events,
    (SELECT coalesce(sum(last_version - first_version + 1), 0) FROM outbox
        WHERE wallet_id = $1::uuid)::bigint AS outbox,
    (SELECT version - 1 FROM wallets WHERE id = $1::uuid) AS versions,
    (SELECT (balance / 100)::bigint FROM wallets WHERE id = $1::uuid) AS balance
"""


@asynccontextmanager
async def baseline_database(service_url: str) -> AsyncIterator[str]:
    """DSN of a new, migrated database on the service's server; dropped afterwards."""
    name = f"wallet_baseline_{uuid6.uuid7().hex[-8:]}"
    server = await asyncpg.connect(service_url)
    try:
        await server.execute(f"CREATE DATABASE {name}")
        try:
            url = urlunsplit(urlsplit(service_url)._replace(path=f"/{name}"))
            await asyncio.to_thread(upgrade, url)
            yield url
        finally:
            await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await server.close()


async def new_wallet(url: str) -> str:
    """A wallet with no money, at version 1."""
    wallet = str(uuid6.uuid7())
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_SEED, wallet)
        await connection.execute(_SEED_EVENT, wallet)
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return wallet


async def findings(url: str, wallet: str, transfers: int) -> list[str]:
    """Counts that differ from ``transfers`` debits of 1.00 into ``wallet``."""
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(_FOUND, wallet)
    finally:
        await connection.close()
    assert row is not None
    return [
        f"{name}: {count}, but {transfers} were acknowledged"
        for name, count in row.items()
        if count != transfers
    ]
