"""Postgres as far as the journal protocol goes: one place where batches are applied whole.

`Database` is the server: it never fails, and applies one thing at a time. `SimulatedJournal` and
`SimulatedOutbox` are a shard's connections to it, and they fail: before the server is reached,
after it, or with the server still at it when the client has long given up.
"""

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from actors.ports import (
    BatchWrite,
    JournalConflict,
    KeyKey,
    Loaded,
    Missing,
    Span,
    StoredAnswer,
    TransferKey,
)
from wallet.events import Recorded, TransferChanged
from wallet.ids import WalletId
from wallet.state import Transfer, Wallet

K = TypeVar("K")
V = TypeVar("V")


class Rules:
    """What the server enforces. A mutation turns one of them off."""

    check_versions = True
    check_settlements = True
    keep_keys = True


class Database:
    """The tables, and the statements that the write side runs on them."""

    def __init__(self, rules: Rules | None = None, clock: Callable[[], float] = float) -> None:
        self._rules = rules or Rules()
        self._clock = clock
        self._written_at: dict[Span, float] = {}
        """Of the outbox's rows."""
        self.wallets: dict[WalletId, Wallet] = {}
        self.transfers: dict[TransferKey, Transfer] = {}
        self.events: list[Recorded] = []
        self.of_wallet: dict[WalletId, list[Recorded]] = {}
        self.keys: dict[KeyKey, StoredAnswer] = {}
        self.references: dict[str, WalletId] = {}
        self.outbox: dict[WalletId, list[Span]] = {}
        self.filled: str | None = None
        """Which incarnation of the stream has got all of the journal."""
        self.filler: object = None
        """Who holds the lock that lets one relay at a time fill the stream."""

    # -- reading ---------------------------------------------------------------------------------

    def load(self, missing: Missing) -> Loaded:
        # Sorted, always: a set's own order differs from process to process.
        loaded = Loaded(
            wallets=_found(self.wallets, missing.wallets),
            transfers=_found(self.transfers, missing.transfers),
            keys=_found(self.keys, missing.keys),
            references=_found(self.references, missing.references),
        )
        for wallet_id in loaded.wallets:
            loaded.unpublished.extend(self.outbox.get(wallet_id, ()))
        for key in sorted(missing.recorded):
            transfer = self.transfers.get(key)
            if transfer is not None:
                loaded.recorded[key] = self.of_wallet[key[0]][transfer.created_version - 1]
        return loaded

    def span(self, span: Span) -> list[Recorded]:
        return self.of_wallet[span.wallet_id][span.first - 1 : span.last]

    def unpublished(self, limit: int, after: Span | None, older_than_s: float) -> list[Span]:
        """By wallet, and in version order: never a row without those before it."""
        until = self._clock() - older_than_s
        rows = (row for _, rows in sorted(self.outbox.items()) for row in self._up_to(rows, until))
        return list(islice((row for row in rows if after is None or row > after), limit))

    def _up_to(self, rows: list[Span], until: float) -> list[Span]:
        old = [number for number, row in enumerate(rows) if self._written_at[row] <= until]
        return rows[: old[-1] + 1] if old else []

    def written(self, after: WalletId | None, limit: int) -> list[Span]:
        """By wallet: all of each wallet's events."""
        wallets = sorted(one for one in self.wallets if one > (after or ""))
        return [Span(one, 1, self.wallets[one].version) for one in wallets[:limit]]

    # -- writing ---------------------------------------------------------------------------------

    def commit(self, batch: BatchWrite) -> None:
        """`commit_batch`: all of it, or `JournalConflict` and nothing of it."""
        self._check(batch)
        for wallet_id, after in batch.after.items():
            if after.version > batch.expected.get(wallet_id, 0):
                self.wallets[wallet_id] = after
        for wallet_id in batch.created:
            reference_id = batch.after[wallet_id].reference_id
            if reference_id is not None:
                self.references[reference_id] = wallet_id
        for recorded in batch.recorded:
            self._append(recorded)
        for span in batch.spans():
            insort(self.outbox.setdefault(span.wallet_id, []), span)
            self._written_at[span] = self._clock()
        if self._rules.keep_keys:
            self.keys.update(((one.scope, one.keyed.key), one.stored) for one in batch.keys)

    def delete(self, spans: Collection[Span]) -> None:
        for span in spans:
            rows = self.outbox.get(span.wallet_id, [])
            rows[:] = [row for row in rows if row.first != span.first]
            if not rows:
                self.outbox.pop(span.wallet_id, None)

    def _append(self, recorded: Recorded) -> None:
        self.events.append(recorded)
        self.of_wallet.setdefault(recorded.wallet.id, []).append(recorded)
        if isinstance(recorded.event, TransferChanged):
            transfer = recorded.event.transfer
            self.transfers[recorded.wallet.id, transfer.id] = transfer

    def _check(self, batch: BatchWrite) -> None:
        if self._rules.check_versions:
            self._check_versions(batch)
        references = [batch.after[one].reference_id for one in batch.created]
        _require_new("reference", [one for one in references if one], self.references)
        _require_new("key", [(one.scope, one.keyed.key) for one in batch.keys], self.keys)
        self._check_transfers(batch.recorded)

    def _check_versions(self, batch: BatchWrite) -> None:
        for wallet_id, expected in batch.expected.items():
            stored = self.wallets.get(wallet_id)
            if stored is None or stored.version != expected:
                raise JournalConflict(f"version of {wallet_id} is not {expected}")
        _require_new("wallet", batch.created, self.wallets)

    def _check_transfers(self, recorded: Iterable[Recorded]) -> None:
        changed: dict[TransferKey, Transfer] = {}
        for one in recorded:
            if not isinstance(one.event, TransferChanged):
                continue
            transfer = one.event.transfer
            key = one.wallet.id, transfer.id
            stored = changed.get(key) or self.transfers.get(key)
            status = stored.status if stored is not None else None
            if status is not one.event.previous and self._rules.check_settlements:
                raise JournalConflict(f"transfer {transfer.id} is {status}")
            changed[key] = transfer


def _found(stored: dict[K, V], wanted: Iterable[K]) -> dict[K, V]:
    return {one: stored[one] for one in sorted(wanted) if one in stored}  # type: ignore[type-var]


def _require_new(what: str, keys: Sequence[object], stored: Collection[object]) -> None:
    if len(set(keys)) < len(keys) or any(key in stored for key in keys):
        raise JournalConflict(f"{what} is taken: {keys}")
