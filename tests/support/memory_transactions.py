"""Transactions of the in-memory database: what `commit_batch` does while others do it, too.

As Postgres does it under READ COMMITTED. A transaction takes its locks one after another, in the
order of the real function. What another transaction holds is waited for, and then looked at anew,
as the other one left it. Nothing of a transaction is visible before its end; its locks are held
until then. Waiting in a circle is a deadlock, and refused.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from actors.ports import BatchWrite, JournalConflict, TransferKey
from wallet.events import Recorded, TransferChanged
from wallet.ids import WalletId
from wallet.state import TransferStatus

if TYPE_CHECKING:
    from tests.support.memory_database import Database

Lock = Hashable
Step = Callable[[], None]
Key = TypeVar("Key", bound=Hashable)


def _nothing() -> None:
    pass


class Transaction:
    """One `commit_batch`. `advance` until it returns None, then `commit` or `roll_back`."""

    def __init__(self, database: "Database", batch: BatchWrite) -> None:
        self._database = database
        self._batch = batch
        self._steps = self._plan()
        self._step: tuple[Lock | None, Step] | None = None
        self._held: set[Lock] = set()
        self._waiters: list[Callable[[], None]] = []
        self.waits_for: Transaction | None = None
        self.ended = False

    def advance(self) -> "Transaction | None":
        """Go on until a lock is held by another transaction, which is returned; None at the end.

        Raises:
            JournalConflict: and everything is rolled back.
        """
        self.waits_for = None
        try:
            while self._next_step():
                assert self._step is not None, "there is a step"
                lock, check = self._step
                holder = self._database.locks.get(lock) if lock is not None else None
                if holder not in (None, self):
                    self.waits_for = holder
                    self._refuse_deadlock()
                    return holder
                if lock is not None:
                    self._database.locks[lock] = self
                    self._held.add(lock)
                check()
                self._step = None
        except JournalConflict:
            self.roll_back()
            raise
        return None

    def commit(self) -> None:
        """Make everything visible, and let go of all locks."""
        assert not self.ended, "a transaction ends once"
        self._database.apply(self._batch)
        self._end()

    def roll_back(self) -> None:
        """Leave nothing behind."""
        if not self.ended:
            self._end()

    @property
    def has_waiters(self) -> bool:
        return bool(self._waiters)

    def on_end(self, callback: Callable[[], None]) -> None:
        self._waiters.append(callback)

    def _end(self) -> None:
        self.ended = True
        for lock in self._held:
            del self._database.locks[lock]
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def _next_step(self) -> bool:
        if self._step is None:
            self._step = next(self._steps, None)
        return self._step is not None

    def _refuse_deadlock(self) -> None:
        other = self.waits_for
        while other is not None:
            if other is self:
                raise JournalConflict("40P01 deadlock detected")
            other = other.waits_for

    # -- the statements, in the function's order --------------------------------------------------

    def _plan(self) -> Iterator[tuple[Lock | None, Step]]:
        """The locks in order, each with what is looked at once it is held."""
        batch = self._batch
        created = set(batch.created)
        if batch.refused:
            yield from ((("wallet", one), _nothing) for one in sorted(batch.expected))
        for wallet_id in self._changed():
            if self._is_current(wallet_id):  # Otherwise the statement finds no row to lock.
                yield ("wallet", wallet_id), _nothing
        yield None, self._check_versions
        yield None, self._check_refused
        references = (batch.after[one].reference_id for one in created)
        for reference in sorted(one for one in references if one):
            yield ("reference", reference), _new(reference, self._database.references)
        for wallet_id in sorted(created):
            yield ("wallet", wallet_id), _new(wallet_id, self._database.wallets)
        yield None, self._check_duplicates
        yield None, self._check_transfers
        for key in sorted((one.scope, one.keyed.key) for one in batch.keys):
            yield ("key", *key), _new(key, self._database.keys)
        for refused in sorted((one.wallet_id, one.transfer_id) for one in batch.refused):
            yield ("refused", *refused), _new(refused, self._database.refused)

    def _changed(self) -> list[WalletId]:
        batch = self._batch
        return [
            wallet_id
            for wallet_id in sorted(batch.expected)
            if batch.after[wallet_id].version > batch.expected[wallet_id]
        ]

    def _is_current(self, wallet_id: WalletId) -> bool:
        stored = self._database.wallets.get(wallet_id)
        return stored is not None and stored.version == self._batch.expected[wallet_id]

    def _check_versions(self) -> None:
        if not self._database.rules.check_versions:
            return
        stale = [one for one in self._batch.expected if not self._is_current(one)]
        if stale:
            raise JournalConflict("wallet version conflict", wallet_ids=frozenset(stale))

    def _check_refused(self) -> None:
        if not self._database.rules.keep_refused:
            return
        keys = (_created_transfer(recorded) for recorded in self._batch.recorded)
        refused = {key[0] for key in keys if key is not None and key in self._database.refused}
        if refused:
            message = "a transfer was refused for good"
            raise JournalConflict(message, wallet_ids=frozenset(refused))

    def _check_duplicates(self) -> None:
        """Unique keys within the batch itself."""
        batch = self._batch
        _unique("wallets", batch.created)
        references = (batch.after[one].reference_id for one in batch.created)
        _unique("references", [one for one in references if one])
        _unique("keys", [(one.scope, one.keyed.key) for one in batch.keys])

    def _check_transfers(self) -> None:
        changed: dict[TransferKey, TransferStatus] = {}
        for recorded in self._batch.recorded:
            if not isinstance(recorded.event, TransferChanged):
                continue
            transfer = recorded.event.transfer
            key = recorded.wallet.id, transfer.id
            stored = self._database.transfers.get(key)
            status = changed.get(key) or (stored.status if stored else None)
            if status is not recorded.event.previous and self._database.rules.check_settlements:
                raise JournalConflict(f"transfer {transfer.id} is {status}")
            changed[key] = transfer.status


def _created_transfer(recorded: Recorded) -> TransferKey | None:
    event = recorded.event
    if not isinstance(event, TransferChanged) or event.previous is not None:
        return None
    return recorded.wallet.id, event.transfer.id


def _new(key: Key, stored: Mapping[Key, object]) -> Step:
    def check() -> None:
        if key in stored:
            raise JournalConflict(f"{key!r} is taken")

    return check


def _unique(what: str, keys: list[Key]) -> None:
    if len(set(keys)) < len(keys):
        raise JournalConflict(f"{what}: twice in a batch")
