"""Transactions of the in-memory journal: `commit_batch` beside others that are still open.

As Postgres runs it under READ COMMITTED. A transaction takes its locks one after another, in the
order of the SQL function. If another transaction holds a lock, it waits, and then checks the row
again in its new state. Nothing of a transaction is visible before it commits, and its locks are
held until then. Waiting in a circle is a deadlock, and an error.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from actors.journal.ports import (
    CommitRequest,
    JournalConflict,
    JournalError,
    OutcomeUnknown,
    TransferKey,
)
from wallet.events import RecordedEvent, TransferChanged
from wallet.ids import WalletId
from wallet.state import TransferStatus

if TYPE_CHECKING:
    from actors.journal.memory_database import MemoryDatabase

Lock = Hashable
Check = Callable[[], None]
Key = TypeVar("Key", bound=Hashable)


def _no_check() -> None:
    pass


class MemoryTransaction:
    """One `commit_batch`. `advance` until it returns None, then `commit` or `roll_back`."""

    def __init__(self, database: "MemoryDatabase", batch: CommitRequest) -> None:
        self._database = database
        self._batch = batch
        self._steps = self._plan()
        self._step: tuple[Lock | None, Check] | None = None
        self._held: set[Lock] = set()
        self._waiters: list[Callable[[], None]] = []
        self._waits_for: MemoryTransaction | None = None
        self._ended = False
        self._terminated = False

    def advance(self) -> "MemoryTransaction | None":
        """Take locks until one is held by another transaction, which is returned; None: all taken.

        Raises:
            JournalConflict: and everything is rolled back.
            OutcomeUnknown: the server was lost.
        """
        self._raise_if_terminated()
        self._database.open_transactions[self] = None
        self._waits_for = None
        try:
            while self._step or self._next_step():
                assert self._step is not None, "there is a step"
                lock, check = self._step
                holder = self._database.locks.get(lock)
                if holder is not None and holder is not self:
                    self._waits_for = holder
                    self._raise_if_deadlocked()
                    return holder
                if lock is not None:
                    self._database.locks[lock] = self
                    self._held.add(lock)
                check()
                self._step = None
        except (JournalConflict, JournalError):
            self.roll_back()
            raise
        return None

    def commit(self) -> None:
        """Make everything visible, and release all locks.

        Raises:
            OutcomeUnknown: the server was lost.
        """
        self._raise_if_terminated()
        assert not self._ended, "a transaction ends once"
        self._database.apply(self._batch)
        self._end()

    def roll_back(self) -> None:
        """Release all locks and leave nothing behind. Does nothing if it has ended."""
        if not self._ended:
            self._end()

    def terminate(self) -> None:
        """The server is lost: roll back. The client can't know that it was not committed."""
        self._terminated = True
        self.roll_back()

    @property
    def has_waiters(self) -> bool:
        """Whether another transaction waits for one of its locks."""
        return bool(self._waiters)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when this transaction has committed or rolled back."""
        self._waiters.append(callback)

    def _end(self) -> None:
        self._ended = True
        self._database.open_transactions.pop(self, None)
        for lock in self._held:
            del self._database.locks[lock]
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def _raise_if_terminated(self) -> None:
        if self._terminated:
            raise OutcomeUnknown("the server closed the connection during the transaction")

    def _next_step(self) -> bool:
        self._step = next(self._steps, None)
        return self._step is not None

    def _raise_if_deadlocked(self) -> None:
        other = self._waits_for
        while other is not None:
            if other is self:
                raise JournalConflict("40P01 deadlock detected")
            other = other._waits_for

    # -- the statements, in the SQL function's order ----------------------------------------------

    def _plan(self) -> Iterator[tuple[Lock | None, Check]]:
        """The locks in order, each with what is checked once it is held."""
        batch, database = self._batch, self._database
        created = set(batch.created_wallets)
        yield None, self._check_forked
        if batch.refused:
            yield from ((("wallet", one), _no_check) for one in sorted(batch.expected_versions))
        for wallet_id in self._changed_wallets():
            if self._is_current(wallet_id):  # Otherwise the statement finds no row to lock.
                yield ("wallet", wallet_id), _no_check
        yield None, self._check_versions
        yield None, self._check_refused_deliveries
        references = (batch.wallets[one].reference_id for one in created)
        for reference in sorted(one for one in references if one):
            yield ("reference", reference), _check_absent(reference, database.references)
        for wallet_id in sorted(created):
            yield ("wallet", wallet_id), _check_absent(wallet_id, database.wallets)
        yield None, self._check_unique
        yield None, self._check_transfers
        yield None, self._check_refunds
        for key in sorted(batch.stored_answers):
            yield ("key", *key), _check_absent(key, database.idempotency_keys)
        for refused in sorted(batch.refused):
            yield ("refused", *refused), _check_absent(refused, database.refused_deliveries)

    def _changed_wallets(self) -> list[WalletId]:
        batch = self._batch
        return [
            wallet_id
            for wallet_id in sorted(batch.expected_versions)
            if batch.wallets[wallet_id].version > batch.expected_versions[wallet_id]
        ]

    def _is_current(self, wallet_id: WalletId) -> bool:
        stored = self._database.wallets.get(wallet_id)
        batch = self._batch
        expected = (batch.expected_versions[wallet_id], batch.expected_hashes[wallet_id])
        return stored is not None and (stored.version, stored.hash) == expected

    def _check_forked(self) -> None:
        forked = self._database.forked & self._batch.wallets.keys()
        if forked:
            message = "the history of a wallet has forked"
            raise JournalConflict(message, wallet_ids=frozenset(forked))

    def _check_versions(self) -> None:
        stale = [one for one in self._batch.expected_versions if not self._is_current(one)]
        if stale:
            raise JournalConflict("wallet version conflict", wallet_ids=frozenset(stale))

    def _check_refused_deliveries(self) -> None:
        keys = [_created_transfer(recorded) for recorded in self._batch.events]
        stored = self._database.refused_deliveries
        refused = {key[0] for key in [*keys, *self._batch.deliveries] if key in stored}
        if refused:
            message = "a transfer was refused for good"
            raise JournalConflict(message, wallet_ids=frozenset(refused))

    def _check_unique(self) -> None:
        """Unique keys within the batch itself."""
        batch = self._batch
        _check_distinct("wallets", batch.created_wallets)
        references = (batch.wallets[one].reference_id for one in batch.created_wallets)
        _check_distinct("references", [one for one in references if one])

    def _check_transfers(self) -> None:
        """Every change of a transfer starts from the status that it has."""
        changed: dict[TransferKey, TransferStatus] = {}
        for recorded in self._batch.events:
            if not isinstance(recorded.event, TransferChanged):
                continue
            transfer = recorded.event.transfer
            key = recorded.wallet_after.id, transfer.id
            stored = self._database.transfers.get(key)
            status = changed.get(key) or (stored.status if stored else None)
            if status is not recorded.event.previous:
                raise JournalConflict(f"transfer {transfer.id} is {status}")
            changed[key] = transfer.status

    def _check_refunds(self) -> None:
        """Refunds are of transfers the other way, and sum up to what these completed. (INV-16)"""
        completed: dict[TransferKey, int] = {}
        for recorded in self._batch.events:
            event = recorded.event
            if not isinstance(event, TransferChanged):
                continue
            wallet_id, transfer = recorded.wallet_after.id, event.transfer
            completed[wallet_id, transfer.id] = transfer.completed_amount
            if transfer.refunds is None:
                continue
            key = wallet_id, transfer.refunds
            original = self._database.transfers.get(key)
            known = completed.get(key, original.completed_amount if original else 0)
            is_other_way = original is None or original.type is not transfer.type
            if not is_other_way or event.refunded is None or event.refunded.total > known:
                raise JournalError(f"INV-16 transfer {transfer.refunds} can't be refunded")


def _created_transfer(recorded: RecordedEvent) -> TransferKey | None:
    event = recorded.event
    if not isinstance(event, TransferChanged) or event.previous is not None:
        return None
    return recorded.wallet_after.id, event.transfer.id


def _check_absent(key: Key, stored: Collection[Key]) -> Check:
    def check() -> None:
        if key in stored:
            raise JournalConflict(f"{key!r} is taken")

    return check


def _check_distinct(what: str, keys: Sequence[Key]) -> None:
    if len(set(keys)) < len(keys):
        raise JournalConflict(f"{what}: twice in a batch")
