"""Waits until everything that was committed is published and projected."""

import asyncio
import time
from typing import Final

import asyncpg

_POLL_S: Final = 0.05

_BACKLOG: Final = """
SELECT (SELECT count(*) FROM outbox) + (
    SELECT count(*) FROM wallets w LEFT JOIN wallet_projections p ON p.wallet_id = w.id
    WHERE p.version IS DISTINCT FROM w.version)
"""


async def drained_s_of(database_url: str, *, timeout_s: float) -> float | None:
    """Time in seconds until everything was published and projected; None on time-out."""
    began = time.monotonic()
    connection = await asyncpg.connect(database_url)
    try:
        while await connection.fetchval(_BACKLOG):
            if time.monotonic() - began > timeout_s:
                return None
            await asyncio.sleep(_POLL_S)
    finally:
        await connection.close()
    return time.monotonic() - began
