"""Rules of expiry: when a transfer may expire, and what becomes of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.support.domain import LATER, NOW, TRANSFER_ID, make_transfer, make_wallet
from wallet.commands import CreateTransfer, RequestedExpiry, SettleTransfer
from wallet.expiry_rules import ExpiryBounds, resolve_expiry
from wallet.fold import evolve
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode
from wallet.representation import encode_transfer
from wallet.rules import decide_expiry, decide_settlement, decide_transfer
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

BOUNDS = ExpiryBounds(least=timedelta(seconds=1), most=timedelta(days=30))
EXPIRES_AT = NOW + timedelta(seconds=60)


def expiring(
    action: OnExpiry = OnExpiry.FAIL, *, at: datetime = EXPIRES_AT, **fields: Any
) -> Transfer:
    return make_transfer(expiry=Expiry(at, action), **fields)


@pytest.mark.parametrize("seconds", [1, 30 * 86_400])
def test_both_bounds_are_allowed(seconds: int) -> None:
    at = NOW + timedelta(seconds=seconds)
    for requested in (RequestedExpiry(after_s=seconds), RequestedExpiry(at=at)):
        assert resolve_expiry(requested, now=NOW, bounds=BOUNDS) == Expiry(at)


@pytest.mark.parametrize("seconds", [-60, 0, 0.999999, 30 * 86_400 + 0.000001])
def test_beyond_the_bounds_is_refused_for_good(seconds: float) -> None:
    requested = RequestedExpiry(at=NOW + timedelta(seconds=seconds))
    refusal = resolve_expiry(requested, now=NOW, bounds=BOUNDS)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.EXPIRY_OUT_OF_RANGE
    assert refusal.pointer == "/expires_at"
    assert "from 2026-01-02T03:04:06.678900Z" in refusal.detail
    assert refusal.code in STORED_UNDER_KEY


def test_a_time_is_kept_in_utc_whatever_its_offset() -> None:
    at = datetime.fromisoformat("2026-01-10T01:00:00+02:00")
    expiry = resolve_expiry(RequestedExpiry(at=at), now=NOW, bounds=BOUNDS)
    assert isinstance(expiry, Expiry)
    assert expiry.at.tzinfo is UTC
    assert expiry.at.isoformat() == "2026-01-09T23:00:00+00:00"


def test_a_transfer_out_of_bounds_is_refused_before_its_money_is_looked_at() -> None:
    command = CreateTransfer(
        transfer_id=TRANSFER_ID,
        type="credit",
        status="pending",
        amount="1",
        expiry=RequestedExpiry(after_s=31 * 86_400),
    )
    refusal = decide_transfer(make_wallet(), command, now=NOW, bounds=BOUNDS)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.EXPIRY_OUT_OF_RANGE
    assert refusal.pointer == "/expires_in_s"


def test_a_transfer_is_due_from_its_time_on_while_it_is_pending() -> None:
    transfer = expiring()
    assert not transfer.is_due(EXPIRES_AT - timedelta(microseconds=1))
    assert transfer.is_due(EXPIRES_AT)
    failed = msgspec.structs.replace(transfer, status=TransferStatus.FAILED)
    assert not failed.is_due(EXPIRES_AT)
    assert not make_transfer().is_due(datetime.max.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("action", "freeze", "status"),
    [
        (OnExpiry.FAIL, None, TransferStatus.FAILED),
        (OnExpiry.FAIL, FreezeDirection.BOTH, TransferStatus.FAILED),
        (OnExpiry.COMPLETE, None, TransferStatus.COMPLETED),
        (OnExpiry.COMPLETE, FreezeDirection.CREDIT, TransferStatus.COMPLETED),
        (OnExpiry.COMPLETE, FreezeDirection.DEBIT, TransferStatus.FAILED),
        (OnExpiry.COMPLETE, FreezeDirection.BOTH, TransferStatus.FAILED),
    ],
)
def test_nothing_refuses_an_expiry(
    action: OnExpiry, freeze: FreezeDirection | None, status: TransferStatus
) -> None:
    wallet = make_wallet(
        pending_debit=100,
        status=WalletStatus.ACTIVE if freeze is None else WalletStatus.FROZEN,
        freeze=freeze and Freeze(freeze),
    )
    event = decide_expiry(wallet, expiring(action), now=EXPIRES_AT)
    assert event.transfer.status is status
    assert event.transfer.settled_at == event.occurred_at == EXPIRES_AT
    failed = status is TransferStatus.FAILED
    assert event.transfer.failure_reason is (FailureReason.EXPIRED if failed else None)
    after = evolve(wallet, event)
    assert (after.balance, after.pending_debit) == (0 if failed else 100, 0)


def test_an_expired_credit_gives_its_money_back() -> None:
    wallet = make_wallet(balance=5, pending_credit=100)
    event = decide_expiry(wallet, expiring(type=TransferType.CREDIT), now=EXPIRES_AT)
    after = evolve(wallet, event)
    assert (after.balance, after.pending_credit) == (105, 0)


@pytest.mark.parametrize(
    "transfer", [expiring(), make_transfer(), expiring(status=TransferStatus.FAILED)]
)
def test_what_is_not_due_does_not_expire(transfer: Transfer) -> None:
    with pytest.raises(AssertionError, match="INV-15"):
        decide_expiry(make_wallet(), transfer, now=EXPIRES_AT - timedelta(microseconds=1))


def test_a_refusal_says_that_the_transfer_expired_and_when() -> None:
    wallet = make_wallet(pending_debit=100)
    event = decide_expiry(wallet, expiring(), now=EXPIRES_AT)
    command = SettleTransfer(transfer_id=TRANSFER_ID, status="completed")
    refusal = decide_settlement(wallet, event.transfer, command, now=EXPIRES_AT)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.TRANSFER_ALREADY_FAILED
    assert "it expired at 2026-01-02T03:05:05.678900Z" in refusal.detail


def test_a_transfer_that_was_reverted_in_time_did_not_expire() -> None:
    reverted = expiring(
        status=TransferStatus.FAILED, failure_reason=FailureReason.REVERTED, settled_at=LATER
    )
    command = SettleTransfer(transfer_id=TRANSFER_ID, status="completed")
    refusal = decide_settlement(make_wallet(), reverted, command, now=EXPIRES_AT)
    assert isinstance(refusal, Refusal)
    assert "expired" not in refusal.detail


def test_only_a_transfer_that_expires_says_so() -> None:
    wallet = make_wallet()
    plain = msgspec.json.decode(encode_transfer(make_transfer(), wallet))
    assert "expires_at" not in plain
    assert "on_expiry" not in plain
    shown = msgspec.json.decode(encode_transfer(expiring(OnExpiry.COMPLETE), wallet))
    assert shown["expires_at"] == "2026-01-02T03:05:05.678900Z"
    assert shown["on_expiry"] == "complete"
