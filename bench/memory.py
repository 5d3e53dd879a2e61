"""Whether the service's memory grows with what it has done."""

from collections.abc import Mapping
from typing import Final

import msgspec

from bench.audit import AuditFailed, Books, expected_of
from bench.generators.load import Load, LoadFailed
from bench.generators.python import Generator
from bench.generators.requests import RequestSource
from bench.measure import Bench
from bench.processes import memory_of
from bench.scenarios import BATCH_ITEMS, BY_NAME, deck_of
from bench.settle import wait_until_drained

WARM_UP_TRANSFERS: Final = 50_000
"""Done before the first reading: caches, pools and the database's buffers fill once."""

_CONNECTIONS: Final = 4
_TIME_MAX_S: Final = 600.0


class MemoryGrowth(msgspec.Struct, frozen=True, kw_only=True):
    """Resident bytes of every process of the service, by part; shared pages counted once."""

    transfers: int
    before: Mapping[str, int]
    after: Mapping[str, int]

    @property
    def ratio(self) -> float:
        return sum(self.after.values()) / sum(self.before.values())


async def measure_memory(bench: Bench, transfers: int) -> MemoryGrowth:
    """Send ``transfers`` in batches across the pool, and compare before with after.

    Raises:
        AuditFailed, LoadFailed: see `Bench.measure`.
    """
    await _send(bench, WARM_UP_TRANSFERS)
    before = memory_of(bench.service.processes())
    await _send(bench, transfers)
    return MemoryGrowth(
        transfers=transfers, before=before, after=memory_of(bench.service.processes())
    )


async def _send(bench: Bench, transfers: int) -> None:
    wallets = await bench.pool()
    deck = deck_of(BY_NAME["uniform_batch"], wallets)
    books = Books(bench.ledger, bench.stream, wallets)
    await books.open()
    load = Load(
        url=bench.service.http_url,
        deck="",
        mode=deck.mode,
        connections=_CONNECTIONS,
        duration_s=_TIME_MAX_S,
        key_prefix="",
        headers=bench.service.headers,
    )
    source = RequestSource(deck.cards, url=load.url, headers=load.headers)
    result = await Generator(load, source, requests_max=transfers // BATCH_ITEMS).run()
    if result.errors:
        raise LoadFailed(f"not every transfer was accepted: {result.errors}")
    await wait_until_drained(bench.ledger, wallets)
    findings = await books.findings(result, expected_of(result, deck.mode))
    if findings:
        raise AuditFailed("memory_growth", findings)
