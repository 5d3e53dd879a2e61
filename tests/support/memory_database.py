"""Postgres in memory, as far as the journal protocol goes: tables, statements, transactions.

`Database` is the server, and never fails. Who connects to it may: `MemoryJournal` as a test says,
the simulation's connections as a seed says. Statements read what is committed; `commit_batch` is a
`Transaction`, and several may be open at once.
"""

from bisect import insort
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import TypeVar

from actors.ports import (
    BatchWrite,
    KeyKey,
    Loaded,
    Missing,
    Span,
    StoredAnswer,
    TransferKey,
)
from tests.support.memory_transactions import Lock, Transaction
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
    keep_refused = True


class Database:
    """The tables, and the statements that the write side runs on them."""

    def __init__(self, rules: Rules | None = None, clock: Callable[[], float] = float) -> None:
        self.rules = rules or Rules()
        self._clock = clock
        self._written_at: dict[Span, float] = {}
        """Of the outbox's rows."""
        self.wallets: dict[WalletId, Wallet] = {}
        self.transfers: dict[TransferKey, Transfer] = {}
        self.events: list[Recorded] = []
        self.of_wallet: dict[WalletId, list[Recorded]] = {}
        self.keys: dict[KeyKey, StoredAnswer] = {}
        self.references: dict[str, WalletId] = {}
        self.refused: dict[TransferKey, bytes] = {}
        """Answers of transfers that were refused for good."""
        self.locks: dict[Lock, Transaction] = {}
        """By whom each row or key is locked."""
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
        loaded.refused = _found(self.refused, missing.recorded)
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

    def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        return frozenset(one for one in wallet_ids if ("wallet", one) in self.locks)

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, batch: BatchWrite) -> Transaction:
        """`commit_batch`: all of it, or `JournalConflict` and nothing of it."""
        return Transaction(self, batch)

    def apply(self, batch: BatchWrite) -> None:
        """What `batch` writes becomes visible. Only for a `Transaction`, which has checked it."""
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
        if self.rules.keep_keys:
            self.keys.update(((one.scope, one.keyed.key), one.stored) for one in batch.keys)
        for refused in batch.refused:
            self.refused[refused.wallet_id, refused.transfer_id] = refused.answer

    def delete(self, spans: Collection[Span]) -> None:
        for span in spans:
            rows = self.outbox.get(span.wallet_id, [])
            rows[:] = [row for row in rows if not span.first <= row.first <= span.last]
            if not rows:
                self.outbox.pop(span.wallet_id, None)

    def _append(self, recorded: Recorded) -> None:
        self.events.append(recorded)
        self.of_wallet.setdefault(recorded.wallet.id, []).append(recorded)
        if isinstance(recorded.event, TransferChanged):
            transfer = recorded.event.transfer
            self.transfers[recorded.wallet.id, transfer.id] = transfer


def _found(stored: dict[K, V], wanted: Iterable[K]) -> dict[K, V]:
    return {one: stored[one] for one in sorted(wanted) if one in stored}  # type: ignore[type-var]
