"""Wait until everything that was written has been published and projected."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.database_state import DatabaseState
from bench.generators.load_spec import LoadFailed

TIMEOUT_S: Final = 300.0

_PAUSE_MIN_S: Final = 0.02
_POLL_SHARE_MAX: Final = 0.1
"""At most this share of the time is spent polling: each query costs the database, too."""


async def wait_until_drained(ledger: DatabaseState, wallets: Sequence[str]) -> float:
    """When (Unix time) every wallet's projection was seen at its wallet's version.

    From then on the stream is complete, too: projections read from it.

    Raises:
        LoadFailed: not within `TIMEOUT_S`.
    """
    return await _wait_for_none("projections behind", ledger.wallets_behind, wallets)


async def _wait_for_none(
    what: str, count: Callable[[Sequence[str]], Awaitable[int]], wallets: Sequence[str]
) -> float:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        polled_at = time.monotonic()
        found = await count(wallets)
        if found == 0:
            return time.time()
        now = time.monotonic()
        if now >= deadline:
            raise LoadFailed(f"{what}: {found} after {TIMEOUT_S:g} s")
        await asyncio.sleep(max(_PAUSE_MIN_S, (now - polled_at) / _POLL_SHARE_MAX))
