"""Waiting until everything that was written has been published and read."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.database_state import DatabaseState
from bench.generators.load_spec import LoadFailed

TIMEOUT_S: Final = 300.0

_PAUSE_MIN_S: Final = 0.02
_ASKING_SHARE: Final = 0.1
"""At most this much of the time is spent asking: the answer costs the database, too."""


async def wait_until_drained(ledger: DatabaseState, wallets: Sequence[str]) -> float:
    """When (Unix time) every wallet's projection was seen at its wallet's version.

    From then on the stream can be counted, too: it is where projections have everything from.

    Raises:
        LoadFailed: not within `TIMEOUT_S`.
    """
    return await _wait_for_none("projections behind", ledger.wallets_behind, wallets)


async def _wait_for_none(
    what: str, count: Callable[[Sequence[str]], Awaitable[int]], wallets: Sequence[str]
) -> float:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        asked = time.monotonic()
        found = await count(wallets)
        if found == 0:
            return time.time()
        now = time.monotonic()
        if now >= deadline:
            raise LoadFailed(f"{what}: {found} after {TIMEOUT_S:g} s")
        await asyncio.sleep(max(_PAUSE_MIN_S, (now - asked) / _ASKING_SHARE))
