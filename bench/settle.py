"""Waiting until everything that was written has been published and read."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.generators.load import LoadFailed
from bench.ledger import Ledger

TIMEOUT_S: Final = 300.0

_PAUSE_MIN_S: Final = 0.02
_ASKING_SHARE: Final = 0.1
"""At most this much of the time is spent asking: the answer costs the database, too."""


async def wait_until_drained(ledger: Ledger, wallets: Sequence[str]) -> float:
    """When (Unix time) every wallet's projection was seen at its wallet's version.

    Returns once their outbox is empty, too: from then on the stream can be counted.

    Raises:
        LoadFailed: not within `TIMEOUT_S`.
    """
    drained_at = await _wait_for_none("projections behind", ledger.wallets_behind, wallets)
    await _wait_for_none("unpublished rows", ledger.unpublished, wallets)
    return drained_at


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
