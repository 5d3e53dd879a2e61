"""Rebuilds the projections from the journal, online.

Wallet by wallet: its projection rows are locked, deleted and projected again in one transaction,
so a reader sees the old rows or the new ones. A wallet with a long history is rebuilt in pieces
(`projections.wallet_rebuild`). Meanwhile the consumer's events for this wallet wait for the
lock and are then dropped, or caught up, by version. The consumer locks many wallets' rows in one
transaction, so a deadlock is possible: Postgres aborts one of the two, and that one retries.
"""

from collections.abc import AsyncIterator, Callable

import asyncpg
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from projections.store import CATCH_UP_EVENTS_MAX
from projections.wallet_rebuild import retake_wallet
from runtime.postgres.connect import connect
from runtime.settings import Settings

_PAGE = 500

_ATTEMPTS_MAX = 20
"""For a wallet that deadlocks with the consumer again and again."""


async def rebuild(
    settings: Settings, on_progress: Callable[[int], None] = lambda _done: None
) -> int:
    """Rebuild every wallet's projections; returns the number of wallets.

    ``on_progress`` is called after each page with the number of wallets done.

    Raises:
        OSError, asyncpg.PostgresError: Postgres is not reachable or fails.
    """
    connection = await connect(settings.database_url, timeout_s=settings.database_connect_timeout_s)
    done = 0
    try:
        await _delete_orphans(connection)
        async for page in _pages(connection):
            for wallet_id in page:
                await _rebuild_with_retry(connection, wallet_id)
            done += len(page)
            on_progress(done)
    finally:
        await connection.close()
    return done


async def _pages(connection: asyncpg.Connection) -> AsyncIterator[list[str]]:
    after = "00000000-0000-0000-0000-000000000000"
    while True:
        rows = await connection.fetch(
            "SELECT id::text FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2", after, _PAGE
        )
        if not rows:
            return
        page = [row[0] for row in rows]
        yield page
        after = page[-1]


async def _rebuild_with_retry(connection: asyncpg.Connection, wallet_id: str) -> None:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(asyncpg.DeadlockDetectedError),
        stop=stop_after_attempt(_ATTEMPTS_MAX),
        wait=wait_random_exponential(multiplier=0.01, max=0.5),
        reraise=True,
    ):
        with attempt:
            await retake_wallet(connection, wallet_id, events_max=CATCH_UP_EVENTS_MAX)


async def _delete_orphans(connection: asyncpg.Connection) -> None:
    """Delete rows of wallets that the write side doesn't have: they can only be corruption."""
    for table in ("wallet_projections", "transfer_projections"):
        await connection.execute(
            f"DELETE FROM {table} p WHERE NOT EXISTS "
            "(SELECT 1 FROM wallets w WHERE w.id = p.wallet_id)"
        )
