"""Corrupt data in either direction fails an assertion at the journal, and nothing is written."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from actors.journal.assertions import assert_loaded, assert_writable
from actors.journal.ports import CommitRequest, EventRange, LoadedState
from actors.shard.shard import Shard
from tests.support.batches import request
from tests.support.domain import (
    OTHER_WALLET_ID,
    TRANSFER_ID,
    WALLET_ID,
    changed,
    created,
    make_transfer,
    make_wallet,
    settled,
    transfer_id,
)
from tests.support.faulty_journal import FaultyJournal
from tests.support.waiting import stop
from tests.support.write_side import LIMITS, DetachedRelay, debit
from tests.support.writes import CommitRequestBuilder, make_answer
from wallet.commands import CommandRequest
from wallet.ids import IdempotencyKey
from wallet.state import Transfer, TransferStatus

KEY = (WALLET_ID, TRANSFER_ID)


def make_write() -> CommitRequest:
    """Two debits of a wallet at version 5, and an answer under a key."""
    making = CommitRequestBuilder(make_wallet())
    making.transfer(WALLET_ID, make_transfer(id=transfer_id(1)))
    making.transfer(WALLET_ID, make_transfer(id=transfer_id(2)))
    making.key(WALLET_ID, "k", make_answer(7))
    return making.write


def test_what_the_rules_decided_is_writable() -> None:
    assert_writable(make_write())
    making = CommitRequestBuilder()
    making.create(WALLET_ID)
    making.key(OTHER_WALLET_ID, "the scope of a creation", make_answer(1))
    assert_writable(making.write)


def test_a_written_wallet_has_a_version_that_is_checked() -> None:
    write = make_write()
    write.expected_versions.clear()
    with pytest.raises(AssertionError, match="INV-5"):
        assert_writable(write)


def test_a_batch_that_lost_an_event_is_not_written() -> None:
    write = make_write()
    del write.events[0]
    with pytest.raises(AssertionError, match="INV-10 versions are contiguous"):
        assert_writable(write)


def test_a_version_without_event_is_not_written() -> None:
    write = make_write()
    write.events.clear()
    with pytest.raises(AssertionError, match="INV-10 no version without event"):
        assert_writable(write)


def test_a_balance_that_no_event_made_is_not_written() -> None:
    write = make_write()
    write.wallets[WALLET_ID] = msgspec.structs.replace(write.wallets[WALLET_ID], balance=1)
    with pytest.raises(AssertionError, match="INV-12"):
        assert_writable(write)


@pytest.mark.parametrize("scope", [WALLET_ID, OTHER_WALLET_ID])
def test_an_answer_is_of_a_version_that_is_written(scope: Any) -> None:
    write = make_write()
    write.stored_answers = {(scope, IdempotencyKey("k")): make_answer(8)}
    with pytest.raises(AssertionError, match="INV-6 an answer"):
        assert_writable(write)


def test_what_is_refused_for_good_is_not_written() -> None:
    making = CommitRequestBuilder(make_wallet())
    making.transfer(WALLET_ID, make_transfer())
    making.refuse(WALLET_ID, TRANSFER_ID)
    with pytest.raises(AssertionError, match="INV-7"):
        assert_writable(making.write)


def test_what_keeps_the_rules_is_loaded() -> None:
    wallet = make_wallet(balance=5)
    done = settled(make_transfer(id=transfer_id(1)), TransferStatus.FAILED)
    assert_loaded(
        LoadedState(
            wallets={WALLET_ID: wallet},
            unpublished=[EventRange(WALLET_ID, 3, 3), EventRange(WALLET_ID, 4, 5)],
            transfers={KEY: make_transfer(), (WALLET_ID, done.id): done},
            created_transfers={KEY: changed(make_transfer(), wallet)},
        )
    )


@pytest.mark.parametrize(
    ("fields", "invariant"),
    [
        ({"balance": -1}, "INV-1"),
        ({"pending_debit": -1}, "INV-2"),
        ({"pending_credit": -1}, "INV-2"),
        ({"balance": 10**38}, "INV-3"),
        ({"version": 0}, "INV-10"),
    ],
)
def test_a_damaged_wallet_is_not_decided_on(fields: dict[str, int], invariant: str) -> None:
    with pytest.raises(AssertionError, match=invariant):
        assert_loaded(LoadedState(wallets={WALLET_ID: make_wallet(**fields)}))


@pytest.mark.parametrize(
    "rows",
    [
        [EventRange(WALLET_ID, 2, 3), EventRange(WALLET_ID, 3, 5)],
        [EventRange(WALLET_ID, 4, 5), EventRange(WALLET_ID, 2, 3)],
        [EventRange(WALLET_ID, 5, 6)],
    ],
    ids=["overlap", "order", "unwritten"],
)
def test_outbox_rows_out_of_order_are_damage(rows: list[EventRange]) -> None:
    with pytest.raises(AssertionError, match="INV-9"):
        assert_loaded(LoadedState(wallets={WALLET_ID: make_wallet()}, unpublished=rows))


@pytest.mark.parametrize(
    ("transfer", "invariant"),
    [
        (make_transfer(id=transfer_id(1)), "INV-7"),
        (make_transfer(created_version=1), "INV-10"),
        (make_transfer(status=TransferStatus.COMPLETED), "INV-4"),
        (settled(make_transfer(), TransferStatus.PENDING), "INV-4"),
    ],
)
def test_a_damaged_transfer_is_not_decided_on(transfer: Transfer, invariant: str) -> None:
    with pytest.raises(AssertionError, match=invariant):
        assert_loaded(LoadedState(transfers={KEY: transfer}))


@pytest.mark.parametrize(
    "recorded",
    [
        changed(make_transfer(), make_wallet(id=OTHER_WALLET_ID)),
        changed(make_transfer(id=transfer_id(1)), make_wallet()),
        changed(make_transfer(), make_wallet(), previous=TransferStatus.PENDING),
        created(make_wallet()),
    ],
)
def test_an_event_that_did_not_make_the_transfer_is_damage(recorded: Any) -> None:
    with pytest.raises(AssertionError, match="INV-7"):
        assert_loaded(LoadedState(created_transfers={KEY: recorded}))


async def end_of_shard(journal: FaultyJournal, asked: CommandRequest) -> BaseException | None:
    """The exception with which a shard ends after this request."""
    shard = Shard(
        journal=journal, relay=DetachedRelay(), limits=LIMITS, now=lambda: datetime.now(UTC)
    )
    asking = asyncio.create_task(shard.submit([asked]))
    running = asyncio.create_task(shard.run())
    await asyncio.wait([running], timeout=5)
    await stop(asking)
    return running.exception()


async def journal_with_a_wallet() -> FaultyJournal:
    journal, making = FaultyJournal(), CommitRequestBuilder()
    making.create(WALLET_ID)
    await journal.commit(making.write)
    return journal


async def test_a_shard_that_reads_damage_ends_and_writes_nothing() -> None:
    journal = await journal_with_a_wallet()
    damaged = msgspec.structs.replace(journal.database.wallets[WALLET_ID], pending_debit=-1)
    journal.database.wallets[WALLET_ID] = damaged
    end = await end_of_shard(journal, request(debit()))
    assert isinstance(end, AssertionError)
    assert "INV-2" in str(end)
    assert (journal.commits, journal.database.wallets[WALLET_ID]) == (1, damaged)


async def test_a_shard_whose_batch_contradicts_itself_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = await journal_with_a_wallet()
    before = journal.database.wallets[WALLET_ID]
    monkeypatch.setattr("wallet.chain.evolve", lambda _wallet, _event: before)
    end = await end_of_shard(journal, request(debit()))
    assert isinstance(end, AssertionError)
    assert "INV-10" in str(end)
    assert (journal.commits, journal.database.wallets[WALLET_ID]) == (1, before)
