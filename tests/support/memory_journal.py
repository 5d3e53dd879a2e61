"""A journal and an outbox in memory, as strict as the real ones and failing when told to.

Passes the same contract tests as the Postgres adapters (`tests/contract`), so what a shard does
on it, it does on Postgres.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum, auto
from typing import TypeVar

from actors.ports import (
    BatchWrite,
    JournalConflict,
    JournalUnavailable,
    KeyKey,
    Loaded,
    Missing,
    OutcomeUnknown,
    Span,
    StoredAnswer,
    TransferKey,
)
from wallet.events import Recorded, TransferChanged
from wallet.ids import WalletId
from wallet.state import Transfer, Wallet

Key = TypeVar("Key")
Value = TypeVar("Value")


class Fault(Enum):
    """How the next commit goes wrong."""

    CONFLICT = auto()
    """Refused as if somebody else had written first."""
    UNAVAILABLE = auto()
    """Surely not applied."""
    LOST_BEFORE_APPLYING = auto()
    """No answer, and nothing was applied."""
    LOST_AFTER_APPLYING = auto()
    """No answer, and everything was applied."""
    LOST_AND_APPLIED_LATE = auto()
    """No answer; the server is still at it, and applies it right before the next commit."""


class MemoryJournal:
    """Implements `Journal` and `Outbox`.

    ``commit_faults`` and ``loads_unavailable`` are consumed one a call. Every call lets other
    tasks run once, as a real one would.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.wallets: dict[WalletId, Wallet] = {}
        self.transfers: dict[TransferKey, Transfer] = {}
        self.events: dict[WalletId, list[Recorded]] = {}
        self.keys: dict[KeyKey, StoredAnswer] = {}
        self.references: dict[str, WalletId] = {}
        self.rows: dict[tuple[WalletId, int], tuple[Span, float]] = {}
        """The outbox: by wallet and first version, in the order of the commits."""
        self.commit_faults: deque[Fault | None] = deque()
        self.loads_unavailable = 0
        self.commits = 0
        self.loads = 0
        self._late: list[BatchWrite] = []

    # -- Journal -------------------------------------------------------------------------------

    async def load(self, missing: Missing) -> Loaded:
        self.loads += 1
        if self.loads_unavailable:
            self.loads_unavailable -= 1
            await asyncio.sleep(0)
            raise JournalUnavailable("told to be away")
        loaded = self._load(missing)
        await asyncio.sleep(0)
        return loaded

    async def commit(self, batch: BatchWrite) -> None:
        self._apply_late()
        fault = self.commit_faults.popleft() if self.commit_faults else None
        await asyncio.sleep(0)
        if fault is Fault.CONFLICT:
            raise JournalConflict("told to conflict")
        if fault is Fault.UNAVAILABLE:
            raise JournalUnavailable("told to be away")
        if fault is Fault.LOST_BEFORE_APPLYING:
            raise OutcomeUnknown("told to lose the question")
        if fault is Fault.LOST_AND_APPLIED_LATE:
            self._late.append(batch)
            raise OutcomeUnknown("told to be late")
        self._check(batch)
        self._apply(batch)
        if fault is Fault.LOST_AFTER_APPLYING:
            raise OutcomeUnknown("told to lose the answer")

    # -- Outbox --------------------------------------------------------------------------------

    async def read(self, spans: Sequence[Span]) -> Sequence[Sequence[Recorded]]:
        await asyncio.sleep(0)
        return [self._read(span) for span in spans]

    def _read(self, span: Span) -> Sequence[Recorded]:
        recorded = self.events[span.wallet_id][span.first - 1 : span.last]
        assert len(recorded) == span.last - span.first + 1, "INV-10 the journal has no gaps"
        return recorded

    async def delete(self, spans: Collection[Span]) -> None:
        await asyncio.sleep(0)
        for span in spans:
            self.rows.pop((span.wallet_id, span.first), None)

    async def unpublished(
        self, *, limit: int, after: Span | None = None, older_than_s: float = 0.0
    ) -> Sequence[Span]:
        await asyncio.sleep(0)
        until = self._clock() - older_than_s
        old = [span for span, at in self.rows.values() if at <= until]
        last = {span.wallet_id: span.first for span in sorted(old)}
        rows = (span for span, _ in self.rows.values() if after is None or span > after)
        return sorted(row for row in rows if row.first <= last.get(row.wallet_id, -1))[:limit]

    # -- reading ---------------------------------------------------------------------------------

    def _load(self, missing: Missing) -> Loaded:
        return Loaded(
            wallets=_found(self.wallets, missing.wallets),
            unpublished=[
                span
                for span, _ in self.rows.values()
                if span.wallet_id in missing.wallets and span.wallet_id in self.wallets
            ],
            transfers=_found(self.transfers, missing.transfers),
            keys=_found(self.keys, missing.keys),
            recorded={
                key: self.events[key[0]][self.transfers[key].created_version - 1]
                for key in missing.recorded
                if key in self.transfers
            },
            references=_found(self.references, missing.references),
        )

    # -- writing ---------------------------------------------------------------------------------

    def _apply_late(self) -> None:
        late, self._late = self._late, []
        for batch in late:
            try:
                self._check(batch)
            except JournalConflict:
                continue
            self._apply(batch)

    def _check(self, batch: BatchWrite) -> None:
        """All checks come first: what is refused leaves nothing behind (INV-5)."""
        created = set(batch.created)
        for wallet_id, after in batch.after.items():
            if wallet_id in created:
                _require(wallet_id not in self.wallets, "this wallet exists")
                continue
            stored = self.wallets.get(wallet_id)
            expected = batch.expected.get(wallet_id, 0)
            _require(stored is not None and stored.version == expected, "wallet version conflict")
            assert after.version >= expected, "versions only grow"
        _require_unique("wallets", batch.created, ())
        references = (batch.after[wallet_id].reference_id for wallet_id in batch.created)
        _require_unique("references", (one for one in references if one), self.references)
        keys = ((record.scope, record.keyed.key) for record in batch.keys)
        _require_unique("keys", keys, self.keys)
        self._check_transfers(batch)

    def _check_transfers(self, batch: BatchWrite) -> None:
        status = {key: transfer.status for key, transfer in self.transfers.items()}
        for recorded in batch.recorded:
            event = recorded.event
            if not isinstance(event, TransferChanged):
                continue
            key = (recorded.wallet.id, event.transfer.id)
            if event.previous is None:
                _require(key not in status, "this transfer exists")
            else:
                _require(status.get(key) == event.previous, "a transfer was settled already")
            status[key] = event.transfer.status

    def _apply(self, batch: BatchWrite) -> None:
        self.commits += 1
        for wallet_id, wallet in batch.after.items():
            if wallet.version > batch.expected.get(wallet_id, 0):
                self.wallets[wallet_id] = wallet
        for wallet_id in batch.created:
            reference_id = batch.after[wallet_id].reference_id
            if reference_id is not None:
                self.references[reference_id] = wallet_id
        for recorded in batch.recorded:
            events = self.events.setdefault(recorded.wallet.id, [])
            assert recorded.wallet.version == len(events) + 1, "INV-10 versions have no gaps"
            events.append(recorded)
            if isinstance(recorded.event, TransferChanged):
                transfer = recorded.event.transfer
                self.transfers[recorded.wallet.id, transfer.id] = transfer
        for record in batch.keys:
            self.keys[record.scope, record.keyed.key] = record.stored
        for span in batch.spans():
            self.rows[span.wallet_id, span.first] = (span, self._clock())


def _require(kept: bool, rule: str) -> None:
    if not kept:
        raise JournalConflict(rule)


def _require_unique(what: str, new: Iterable[Value], old: Collection[Value]) -> None:
    seen: set[Value] = set()
    for value in new:
        _require(value not in seen and value not in old, f"{what}: {value!r} exists")
        seen.add(value)


def _found(stored: dict[Key, Value], wanted: set[Key]) -> dict[Key, Value]:
    return {key: stored[key] for key in wanted if key in stored}
