"""The journal's tables in memory, and the statements that the write side runs on them.

A `MemoryDatabase` is the server: any number of clients may share one, and it never fails. The
statements see what is committed. Writing goes through a `MemoryTransaction`, and several may be
open at once. `snapshot` and `restore` take the server back to an earlier moment, as a failover to
an asynchronous standby does, or a backup.
"""

import time
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from actors.journal.expiry_ports import ExpiringTransfer
from actors.journal.memory_marks import StreamMarks
from actors.journal.memory_transactions import Lock, MemoryTransaction
from actors.journal.ports import (
    CommitRequest,
    EventRange,
    IdempotencyKeyRef,
    LoadedState,
    ReadSet,
    StoredAnswer,
    StreamMark,
    TransferKey,
    refunded_by,
)
from wallet.events import RecordedEvent, TransferChanged
from wallet.ids import WalletId
from wallet.slots import SlotRange, slot_of
from wallet.state import Transfer, TransferStatus, Wallet

K = TypeVar("K", bound=Any)
V = TypeVar("V")


class MemoryDatabase:
    """What Postgres holds for the write side. ``clock``: seconds; ages the outbox's rows."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.wallets: dict[WalletId, Wallet] = {}
        self.transfers: dict[TransferKey, Transfer] = {}
        self.events: list[RecordedEvent] = []
        """Of all wallets, in the order of the commits."""
        self.events_by_wallet: dict[WalletId, list[RecordedEvent]] = {}
        """In version order, from 1 and without gaps (INV-10)."""
        self.commits = 0
        """Transactions that have committed."""
        self.idempotency_keys: dict[IdempotencyKeyRef, StoredAnswer] = {}
        self.expiries: set[ExpiringTransfer] = set()
        """Pending transfers that expire."""
        self.references: dict[str, WalletId] = {}
        self.refused_deliveries: dict[TransferKey, bytes] = {}
        """The answers of transfers that were refused permanently."""
        self.outbox: dict[WalletId, list[EventRange]] = {}
        """Rows of each wallet in version order."""
        self._written_at: dict[EventRange, float] = {}
        """Of the outbox's rows."""
        self.forked: set[WalletId] = set()
        """Wallets whose history the journal has lost a part of."""
        self.locks: dict[Lock, MemoryTransaction] = {}
        """Which transaction holds each row or key."""
        self.open_transactions: dict[MemoryTransaction, None] = {}
        """Begun and not ended, in the order in which they began."""
        self.backfilled_incarnation: str | None = None
        """The stream's incarnation that has the whole journal."""
        self.marks = StreamMarks(clock)
        """Sequences that the stream acknowledged and synced."""
        self._changed_at: dict[WalletId, float] = {}
        """When each wallet changed last."""
        self.backfill_owner: object | None = None
        """Who holds the lock that lets one relay at a time backfill the stream."""

    # -- reading ---------------------------------------------------------------------------------

    def load(self, missing: ReadSet) -> LoadedState:
        # In sorted order: a set's own order differs from process to process.
        loaded = LoadedState(
            wallets=_select(self.wallets, missing.wallets),
            transfers=_select(self.transfers, missing.transfers),
            keys=_select(self.idempotency_keys, missing.keys),
            references=_select(self.references, missing.references),
            refused=_select(self.refused_deliveries, missing.created_transfers),
            forked=self.forked & missing.wallets,
        )
        loaded.transfers |= _select(self.transfers, refunded_by(loaded.transfers))
        for wallet_id in loaded.wallets:
            loaded.unpublished.extend(self.outbox.get(wallet_id, ()))
        for key, transfer in _select(self.transfers, missing.created_transfers).items():
            loaded.created_transfers[key] = self.events_by_wallet[key[0]][
                transfer.created_version - 1
            ]
        return loaded

    def read_events(self, event_range: EventRange) -> list[RecordedEvent]:
        events = self.events_by_wallet.get(event_range.wallet_id, [])
        return events[event_range.first - 1 : event_range.last]

    def unpublished(
        self,
        limit: int,
        slots: Iterable[SlotRange],
        after: EventRange | None,
        older_than_s: float,
    ) -> list[EventRange]:
        """Outbox rows by slot and wallet, in version order: never a row without earlier ones."""
        until = self._clock() - older_than_s
        owned = sorted(
            (slot, wallet_id)
            for slot, wallet_id in ((slot_of(one), one) for one in self.outbox)
            if any(first <= slot <= last for first, last in slots)
        )
        start = (slot_of(after.wallet_id), after) if after is not None else None
        rows = [
            (slot, row)
            for slot, wallet_id in owned
            for row in self.outbox[wallet_id]
            if start is None or (slot, row) > start
        ]
        old = [at for at, (_, row) in enumerate(rows) if self._written_at[row] <= until][:limit]
        last_old = {rows[at][1].wallet_id: at for at in old}
        return [row for at, (_, row) in enumerate(rows) if at <= last_old.get(row.wallet_id, -1)]

    def wallet_ranges(
        self, after: WalletId | None, limit: int, since: float | None = None
    ) -> list[EventRange]:
        """All of each wallet's events, by wallet id; only of those that changed ``since``."""
        wallets = sorted(
            one
            for one in self.wallets
            if one > (after or "") and (since is None or self._changed_at[one] >= since)
        )
        return [EventRange(one, 1, self.wallets[one].version) for one in wallets[:limit]]

    def expiring(self, slots: Iterable[SlotRange]) -> list[ExpiringTransfer]:
        """Of these slots, by time."""
        owned = list(slots)
        return sorted(
            one
            for one in self.expiries
            if any(first <= slot_of(one.wallet_id) <= last for first, last in owned)
        )

    def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        return frozenset(one for one in wallet_ids if ("wallet", one) in self.locks)

    # -- writing ---------------------------------------------------------------------------------

    def transaction(self, batch: CommitRequest) -> MemoryTransaction:
        """`commit_batch`: all of it, or `JournalConflict` and nothing of it."""
        return MemoryTransaction(self, batch)

    def apply(self, batch: CommitRequest) -> None:
        """Make what ``batch`` writes visible. Only for a `MemoryTransaction`, which checked it."""
        now = self._clock()
        self.commits += 1
        for wallet_id, after in batch.wallets.items():
            if after.version > batch.expected_versions.get(wallet_id, 0):
                self.wallets[wallet_id] = after
                self._changed_at[wallet_id] = now
        for wallet_id in batch.created_wallets:
            reference_id = batch.wallets[wallet_id].reference_id
            if reference_id is not None:
                self.references[reference_id] = wallet_id
        for recorded in batch.events:
            self._append(recorded)
        for event_range in batch.spans():
            insort(self.outbox.setdefault(event_range.wallet_id, []), event_range)
            self._written_at[event_range] = now
        self._store_answers(batch)
        self.refused_deliveries |= batch.refused

    def _store_answers(self, batch: CommitRequest) -> None:
        self.idempotency_keys |= batch.stored_answers

    def delete(self, event_ranges: Collection[EventRange], mark: StreamMark | None = None) -> None:
        """Delete the outbox rows that begin in one of ``event_ranges``."""
        written_at: list[float] = []
        for event_range in event_ranges:
            rows = self.outbox.get(event_range.wallet_id, [])
            kept = [row for row in rows if not event_range.first <= row.first <= event_range.last]
            written_at += [self._written_at.pop(row) for row in set(rows).difference(kept)]
            rows[:] = kept
            if not rows:
                self.outbox.pop(event_range.wallet_id, None)
        if mark is not None and written_at:
            self.marks.add(mark, min(written_at))

    def _append(self, recorded: RecordedEvent) -> None:
        self.events.append(recorded)
        self.events_by_wallet.setdefault(recorded.wallet_after.id, []).append(recorded)
        if isinstance(recorded.event, TransferChanged):
            transfer = recorded.event.transfer
            self.transfers[recorded.wallet_after.id, transfer.id] = transfer
            if transfer.refunds is not None:
                original = recorded.wallet_after.id, transfer.refunds
                self.transfers[original] = msgspec.structs.replace(
                    self.transfers[original], refunded=recorded.event.refunded
                )
            if transfer.expiry is not None:
                row = ExpiringTransfer(transfer.expiry.at, recorded.wallet_after.id, transfer.id)
                if transfer.status is TransferStatus.PENDING:
                    self.expiries.add(row)
                else:
                    self.expiries.discard(row)

    # -- an earlier moment ------------------------------------------------------------------------

    def snapshot(self) -> "MemoryDatabase":
        """A copy of what is committed: a standby that has replayed this far, or a backup."""
        copy = MemoryDatabase(clock=self._clock)
        copy.restore(self)
        return copy

    def restore(self, snapshot: "MemoryDatabase") -> None:
        """Take over the rows of ``snapshot``, and lose what was committed since.

        Open transactions end without a commit, and their clients don't learn more than that. All
        locks are released.
        """
        for transaction in list(self.open_transactions):
            transaction.terminate()
        self.backfill_owner = None
        self.wallets = dict(snapshot.wallets)
        self.transfers = dict(snapshot.transfers)
        self.events = list(snapshot.events)
        self.events_by_wallet = {one: list(of) for one, of in snapshot.events_by_wallet.items()}
        self.commits = snapshot.commits
        self.idempotency_keys = dict(snapshot.idempotency_keys)
        self.expiries = set(snapshot.expiries)
        self.references = dict(snapshot.references)
        self.refused_deliveries = dict(snapshot.refused_deliveries)
        self.outbox = {one: list(rows) for one, rows in snapshot.outbox.items()}
        self._written_at = dict(snapshot._written_at)
        self.backfilled_incarnation = snapshot.backfilled_incarnation
        self.forked = set(snapshot.forked)
        self.marks = snapshot.marks.copy()
        self._changed_at = dict(snapshot._changed_at)

    # -- backfill of a lost stream -----------------------------------------------------------------

    def lock_backfill(self, owner: object) -> bool:
        """Whether ``owner`` holds the lock now; it may hold it already."""
        if self.backfill_owner is None:
            self.backfill_owner = owner
        return self.backfill_owner is owner

    def unlock_backfill(self, owner: object) -> None:
        if self.backfill_owner is owner:
            self.backfill_owner = None


def _select(stored: Mapping[K, V], keys: Iterable[K]) -> dict[K, V]:
    return {one: stored[one] for one in sorted(keys) if one in stored}
