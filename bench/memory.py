"""Whether the service's memory grows with what it has done."""

from collections.abc import Mapping
from typing import Final

import msgspec

from bench.measure import Bench
from bench.processes import memory_of
from bench.scenarios import BATCH_ITEMS, BY_NAME, script_of

WARM_UP_TRANSFERS: Final = 50_000
"""Sent before the first sample: caches, pools and the database's buffers fill once."""


class MemoryGrowth(msgspec.Struct, frozen=True, kw_only=True):
    """Resident bytes of every process of the service, by part; shared pages counted once."""

    transfers: int
    """Accepted ones."""
    refused: Mapping[str, int] = {}
    """Refused ones by their code: a disk that stalls for seconds causes 503."""
    before: Mapping[str, int]
    after: Mapping[str, int]

    @property
    def ratio(self) -> float:
        return sum(self.after.values()) / sum(self.before.values())


async def measure_memory(bench: Bench, transfers: int) -> MemoryGrowth:
    """Send ``transfers`` in batches across the pool, and compare before with after.

    Raises:
        AuditFailed, LoadFailed: see `Bench.send`.
    """
    wallets = await bench.pool()
    script = script_of(BY_NAME["uniform_batch"], wallets)
    warm_up = min(WARM_UP_TRANSFERS, transfers // 2)
    await bench.send("memory_growth", script, wallets, warm_up // BATCH_ITEMS)
    before = memory_of(bench.service.processes())
    requests = transfers // BATCH_ITEMS
    sent = await bench.send("memory_growth", script, wallets, requests, allow_refusals=True)
    after = memory_of(bench.service.processes())
    return MemoryGrowth(
        transfers=sent.items_accepted, refused=sent.refused_items, before=before, after=after
    )
