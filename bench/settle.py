"""Waiting until the read side has seen everything that was written."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from bench.generators.load import LoadFailed
from bench.ledger import Ledger

TIMEOUT_S: Final = 300.0

_PAUSE_MIN_S: Final = 0.02
_ASKING_SHARE: Final = 0.1
"""At most this much of the time is spent asking: the answer costs the database, too."""


async def wait_until_drained(ledger: Ledger, wallets: Sequence[str]) -> float:
    """Return when (Unix time) every wallet's projection was seen at its wallet's version.

    Raises:
        LoadFailed: not within `TIMEOUT_S`.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        asked = time.monotonic()
        behind = await ledger.wallets_behind(wallets)
        if behind == 0:
            return time.time()
        now = time.monotonic()
        if now >= deadline:
            raise LoadFailed(
                f"the projections of {behind} wallets did not catch up in {TIMEOUT_S:g} s"
            )
        await asyncio.sleep(max(_PAUSE_MIN_S, (now - asked) / _ASKING_SHARE))
