"""Waits until everything that was committed is published and projected, and no hold expires."""

import asyncio
import time
from typing import Final

import asyncpg

_POLL_S: Final = 0.05
_REST_S_MAX: Final = 15.0
"""The clients' holds last for up to 4 s; one whose settlement failed is tried again after 5 s."""

_BACKLOG: Final = """
SELECT (SELECT count(*) FROM outbox) + (
    SELECT count(*) FROM wallets w LEFT JOIN wallet_projections p ON p.wallet_id = w.id
    WHERE p.version IS DISTINCT FROM w.version)
"""

_EXPIRING: Final = """
SELECT count(*) FROM transfer_expiries WHERE expires_at < now() + interval '20 seconds'
"""


async def drained_s_of(database_url: str, *, timeout_s: float) -> float | None:
    """Time in seconds until everything was published and projected; None on time-out."""
    return await _empty_s_of(database_url, _BACKLOG, timeout_s)


async def wait_for_rest(database_url: str) -> None:
    """Return once nothing changes without a request: no hold expires soon, all is projected.

    Without clients a service still settles the holds that they left. Returns in time for a check
    to report what stays overdue or behind.
    """
    for query in (_EXPIRING, _BACKLOG):
        await _empty_s_of(database_url, query, _REST_S_MAX)


async def _empty_s_of(database_url: str, query: str, timeout_s: float) -> float | None:
    began = time.monotonic()
    connection = await asyncpg.connect(database_url)
    try:
        while await connection.fetchval(query):
            if time.monotonic() - began > timeout_s:
                return None
            await asyncio.sleep(_POLL_S)
    finally:
        await connection.close()
    return time.monotonic() - began
