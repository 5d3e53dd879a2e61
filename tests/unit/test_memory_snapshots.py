"""A database in memory that is taken back to an earlier moment."""

from collections.abc import Callable

import pytest

from actors.journal.memory_database import MemoryDatabase
from actors.journal.memory_transactions import MemoryTransaction
from actors.journal.ports import EventRange, OutcomeUnknown
from tests.support.domain import make_transfer, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.state import Wallet

_WALLET_ID, _OTHER = wallet_id(1), wallet_id(2)

_NOT_ROWS = {"_clock", "locks", "open_transactions", "backfill_owner"}


def _rows(database: MemoryDatabase) -> dict[str, object]:
    """Everything that a failover carries over."""
    return {name: repr(rows) for name, rows in vars(database).items() if name not in _NOT_ROWS}


def _commit(database: MemoryDatabase, builder: CommitRequestBuilder) -> None:
    transaction = database.transaction(builder.write)
    assert transaction.advance() is None
    transaction.commit()


def _database_with_a_wallet() -> tuple[MemoryDatabase, Wallet]:
    database, builder = MemoryDatabase(), CommitRequestBuilder()
    wallet = builder.create(_WALLET_ID, reference_id="first")
    _commit(database, builder)
    return database, wallet


def _change(wallet: Wallet, number: int) -> CommitRequestBuilder:
    builder = CommitRequestBuilder(wallet)
    builder.transfer(wallet.id, make_transfer(id=transfer_id(number)))
    return builder


def test_restoring_takes_every_table_back() -> None:
    database, wallet = _database_with_a_wallet()
    snapshot, before = database.snapshot(), _rows(database)
    builder = _change(wallet, 1)
    builder.create(_OTHER, reference_id="second")
    builder.refuse(_WALLET_ID, transfer_id(9))
    _commit(database, builder)
    database.delete([EventRange(_WALLET_ID, 1, 1)])
    database.backfilled_incarnation = "new"
    changed = {name for name, rows in _rows(database).items() if rows != before[name]}
    assert changed >= {"wallets", "transfers", "events", "refused_deliveries", "outbox", "commits"}
    database.restore(snapshot)
    assert _rows(database) == before


def test_a_snapshot_can_be_restored_twice() -> None:
    database, wallet = _database_with_a_wallet()
    snapshot, before = database.snapshot(), _rows(database)
    for number in (1, 2):
        _commit(database, _change(wallet, number))
        database.restore(snapshot)
        assert _rows(database) == before


@pytest.mark.parametrize("step", [MemoryTransaction.advance, MemoryTransaction.commit])
def test_an_open_transaction_ends_with_its_server(
    step: Callable[[MemoryTransaction], object],
) -> None:
    database, wallet = _database_with_a_wallet()
    held = database.transaction(_change(wallet, 1).write)
    assert held.advance() is None
    database.restore(database.snapshot())
    assert (database.locks, database.open_transactions) == ({}, {})
    with pytest.raises(OutcomeUnknown):
        step(held)
    assert database.wallets[_WALLET_ID] == wallet


def test_who_waits_for_a_lock_learns_of_the_lost_server() -> None:
    database, wallet = _database_with_a_wallet()
    held, waiting = (database.transaction(_change(wallet, number).write) for number in (1, 2))
    assert (held.advance(), waiting.advance()) == (None, held)
    woken: list[str] = []
    held.on_end(lambda: woken.append("waiting"))
    database.restore(database.snapshot())
    assert woken == ["waiting"]
    with pytest.raises(OutcomeUnknown):
        waiting.advance()


def test_the_backfill_lock_is_released() -> None:
    database, _ = _database_with_a_wallet()
    assert database.lock_backfill("a relay")
    database.restore(database.snapshot())
    assert database.lock_backfill("another relay")
