"""Whoever meets a transfer that has expired records that first, and then decides."""

from datetime import timedelta
from typing import Any

import pytest

from actors.rpc.messages import Applied, BatchCommitted, BatchRolledBack, Refused
from actors.shard.batch_decision import BatchDecider
from tests.support.batches import keyed_batch, make_batch, make_cache, request
from tests.support.domain import LATER, TRANSFER_ID, WALLET_ID, make_transfer, make_wallet
from tests.support.domain import transfer_id as numbered
from tests.support.results import body
from tests.support.write_side import credit, debit, settle
from wallet.commands import Command, ExpireTransfer
from wallet.events import TransferChanged
from wallet.state import (
    Expiry,
    FailureReason,
    Freeze,
    FreezeDirection,
    OnExpiry,
    Transfer,
    TransferStatus,
    TransferType,
    WalletStatus,
)

DUE = Expiry(LATER)
NOT_DUE = Expiry(LATER + timedelta(microseconds=1))
COMPLETES = Expiry(LATER, OnExpiry.COMPLETE)


def batch_with(expiry: Expiry | None, **wallet: Any) -> BatchDecider:
    held = make_transfer(type=TransferType.CREDIT, expiry=expiry)
    known = make_wallet(**{"pending_credit": 100} | wallet)
    return make_batch(make_cache(known, pending=(held,)))


def after(batch: BatchDecider) -> Transfer:
    return batch.transfers[WALLET_ID, TRANSFER_ID]


def events_of(batch: BatchDecider) -> list[tuple[str, FailureReason | None]]:
    found = [recorded.event for recorded in batch.write.events]
    assert all(isinstance(one, TransferChanged) for one in found)
    return [(one.type.value, one.transfer.failure_reason) for one in found]  # type: ignore[union-attr]


EXPIRED = ("transfer.failed", FailureReason.EXPIRED)


def test_completing_what_has_expired_is_refused_and_the_expiry_recorded() -> None:
    batch = batch_with(DUE)
    result = batch.decide(request(settle(TRANSFER_ID, "completed")))
    assert isinstance(result, Refused)
    assert result.refusal.code == "transfer_already_failed"
    assert events_of(batch) == [EXPIRED]
    assert batch.write.wallets[WALLET_ID].balance == 100


def test_reverting_what_has_expired_answers_that_it_failed() -> None:
    batch = batch_with(DUE)
    answer = body(batch.decide(request(settle(TRANSFER_ID, "failed"))))
    assert (answer["status"], answer["failure_reason"]) == ("failed", "expired")
    assert answer["wallet"]["balance"] == "1.00"
    assert events_of(batch) == [EXPIRED]


def test_completing_what_completes_by_itself_answers_that_it_did() -> None:
    batch = batch_with(COMPLETES)
    answer = body(batch.decide(request(settle(TRANSFER_ID, "completed", reference_id="late"))))
    assert (answer["status"], answer["reference_id"]) == ("completed", None)
    assert events_of(batch) == [("transfer.completed", None)]


def test_reverting_what_completes_by_itself_is_too_late() -> None:
    batch = batch_with(COMPLETES)
    result = batch.decide(request(settle(TRANSFER_ID, "failed")))
    assert isinstance(result, Refused)
    assert result.refusal.code == "transfer_already_completed"
    assert after(batch).status is TransferStatus.COMPLETED


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_before_its_time_a_settlement_goes_first(status: str) -> None:
    batch = batch_with(NOT_DUE)
    body(batch.decide(request(settle(TRANSFER_ID, status))))
    assert after(batch).status == status
    assert after(batch).failure_reason is not FailureReason.EXPIRED


SETTLED: dict[str, Command] = {
    "complete": settle(TRANSFER_ID, "completed"),
    "revert": settle(TRANSFER_ID, "failed"),
    "expire": ExpireTransfer(transfer_id=TRANSFER_ID),
}


@pytest.mark.parametrize("second", SETTLED)
@pytest.mark.parametrize("first", SETTLED)
@pytest.mark.parametrize("expiry", [NOT_DUE, DUE, COMPLETES, None], ids=str)
def test_two_of_them_in_one_batch_settle_it_once(
    first: str, second: str, expiry: Expiry | None
) -> None:
    batch = batch_with(expiry)
    for command in (SETTLED[first], SETTLED[second]):
        batch.decide(request(command))
    wins = (
        "expire"
        if expiry in (DUE, COMPLETES)
        else next((one for one in (first, second) if one != "expire"), None)
    )
    assert len(batch.write.events) == (wins is not None)
    outcome = (after(batch).status, after(batch).failure_reason) if wins else None
    expected = {
        None: None,
        "complete": (TransferStatus.COMPLETED, None),
        "revert": (TransferStatus.FAILED, FailureReason.REVERTED),
        "expire": (TransferStatus.COMPLETED, None)
        if expiry == COMPLETES
        else (TransferStatus.FAILED, FailureReason.EXPIRED),
    }
    assert outcome == expected[wins]


def test_an_expiry_has_no_key_and_nobody_made_it() -> None:
    batch = batch_with(DUE)
    command = settle(TRANSFER_ID, "completed")
    batch.decide(request(command, keys=("k",), api_key_id="a" * 8))
    (recorded,) = batch.write.events
    assert (recorded.made_by, recorded.key_digest) == (None, b"")
    (stored,) = batch.write.stored_answers.values()
    assert stored.refused


def test_an_atomic_batch_that_is_rolled_back_leaves_the_expiry() -> None:
    batch = batch_with(DUE)
    commands: tuple[Command, ...] = (debit("5"), settle(TRANSFER_ID, "completed"))
    result = batch.decide(keyed_batch(*commands, atomic=True))
    assert isinstance(result, BatchRolledBack)
    assert result.index == 1
    assert events_of(batch) == [EXPIRED]
    assert batch.write.wallets[WALLET_ID].balance == 100


def test_money_that_an_expiry_releases_can_be_spent_in_the_same_batch() -> None:
    batch = batch_with(DUE)
    commands = (settle(TRANSFER_ID, "failed"), credit("1"))
    result = batch.decide(request(*commands))
    assert isinstance(result, BatchCommitted)
    assert all(isinstance(one, Applied) for one in result.items)
    assert batch.write.wallets[WALLET_ID].balance == 0


def test_a_frozen_wallet_expires_what_it_holds() -> None:
    frozen = {"status": WalletStatus.FROZEN, "freeze": Freeze(FreezeDirection.BOTH)}
    for expiry in (DUE, COMPLETES):
        batch = batch_with(expiry, **frozen)
        batch.decide(request(SETTLED["expire"]))
        assert events_of(batch) == [EXPIRED]


def test_expiring_what_is_unknown_changes_nothing() -> None:
    batch = batch_with(DUE)
    for number, wallet in ((7, WALLET_ID), (8, "01900000-0000-7000-8000-0000000000ff")):
        command = ExpireTransfer(transfer_id=numbered(number))
        assert isinstance(batch.decide(request(command, wallet=wallet)), Applied)  # type: ignore[arg-type]
    assert not batch.write.events
