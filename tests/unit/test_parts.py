"""Completing a part of a hold: the part moves, and the rest is released."""

from typing import Any

import msgspec
import pytest

from actors.rpc.messages import Applied, Refused
from tests.support.batches import make_batch, make_cache, request
from tests.support.domain import LATER, NOW, TRANSFER_ID, WALLET_ID, make_transfer, make_wallet
from tests.support.domain import settled as settled_as
from tests.support.results import body
from tests.support.write_side import settle
from wallet.commands import ExpireTransfer, SettleTransfer
from wallet.events import TransferChanged
from wallet.fold import evolve
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode
from wallet.representation import encode_transfer
from wallet.rules import decide_settlement
from wallet.state import (
    Expiry,
    Freeze,
    FreezeDirection,
    OnExpiry,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)

DEBIT, CREDIT = TransferType
PENDING, COMPLETED, FAILED = TransferStatus


def complete(amount: str | None = None) -> SettleTransfer:
    return SettleTransfer(transfer_id=TRANSFER_ID, status="completed", amount=amount)


def holding(kind: TransferType, amount: int = 1_000) -> tuple[Wallet, Transfer]:
    pending = {f"pending_{kind}": amount}
    return make_wallet(balance=500, **pending), make_transfer(type=kind, amount=amount)


def decide(kind: TransferType, amount: str | None) -> TransferChanged:
    wallet, transfer = holding(kind)
    event = decide_settlement(wallet, transfer, complete(amount), now=LATER)
    assert isinstance(event, TransferChanged)
    return event


@pytest.mark.parametrize(
    ("kind", "balance"),
    # 10.00 are held, 3.00 are completed: a debit brings them, a credit gives the rest back.
    [(DEBIT, 500 + 300), (CREDIT, 500 + 700)],
)
def test_a_part_settles_and_the_rest_is_released(kind: TransferType, balance: int) -> None:
    event = decide(kind, "3")
    after = evolve(holding(kind)[0], event)
    assert (after.balance, after.pending_debit, after.pending_credit) == (balance, 0, 0)
    assert (event.transfer.amount, event.transfer.completed_amount) == (1_000, 300)
    assert event.transfer.status is COMPLETED


@pytest.mark.parametrize("kind", TransferType)
def test_the_whole_amount_is_no_part(kind: TransferType) -> None:
    whole, all_of_it = decide(kind, "10.00"), decide(kind, None)
    assert whole == all_of_it
    assert (whole.transfer.part, whole.transfer.completed_amount) == (None, 1_000)


@pytest.mark.parametrize("kind", TransferType)
@pytest.mark.parametrize("amount", ["0.01", "9.99"])
def test_a_part_and_its_rest_are_the_hold(kind: TransferType, amount: str) -> None:
    wallet, _ = holding(kind)
    part = decide(kind, amount).transfer.completed_amount
    after = evolve(wallet, decide(kind, amount))
    came_in = part if kind is DEBIT else 1_000 - part
    assert after.balance - wallet.balance == came_in


def test_more_than_the_hold_is_refused_for_good() -> None:
    wallet, transfer = holding(CREDIT)
    for state in (transfer, settled_as(transfer, COMPLETED), settled_as(transfer, FAILED)):
        refusal = decide_settlement(wallet, state, complete("10.01"), now=LATER)
        assert isinstance(refusal, Refusal)
        assert refusal.code is RefusalCode.AMOUNT_EXCEEDS_HOLD
        assert "10.00 USD" in refusal.detail
    assert RefusalCode.AMOUNT_EXCEEDS_HOLD in STORED_UNDER_KEY


def test_an_amount_that_the_currency_lacks_is_told() -> None:
    wallet, transfer = holding(CREDIT)
    refusal = decide_settlement(wallet, transfer, complete("1.001"), now=LATER)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.pointer) == (RefusalCode.VALIDATION_ERROR, "/amount")


@pytest.mark.parametrize(
    ("first", "second", "is_repetition"),
    [
        ("3", "3.00", True),
        (None, None, True),
        (None, "10", True),
        ("10", None, True),
        ("3", None, False),
        ("3", "4", False),
        (None, "3", False),
    ],
)
def test_another_amount_is_another_request(
    first: str | None, second: str | None, is_repetition: bool
) -> None:
    cache = make_cache(holding(CREDIT)[0], pending=(holding(CREDIT)[1],))
    batch = make_batch(cache)
    answer = batch.decide(request(complete(first)))
    again = batch.decide(request(complete(second)))
    assert isinstance(answer, Applied)
    if is_repetition:
        assert body(again) == body(answer)
    else:
        assert isinstance(again, Refused)
        assert again.refusal.code is RefusalCode.TRANSFER_ALREADY_COMPLETED
    assert len(batch.write.events) == 1


def test_reverting_what_was_completed_in_part_is_too_late() -> None:
    cache = make_cache(holding(CREDIT)[0], pending=(holding(CREDIT)[1],))
    batch = make_batch(cache)
    batch.decide(request(complete("3")))
    late = batch.decide(request(settle(TRANSFER_ID, "failed")))
    assert isinstance(late, Refused)
    assert batch.write.wallets[WALLET_ID].balance == 1_200


def test_only_a_part_is_shown() -> None:
    wallet, _ = holding(DEBIT)
    shown: Any = msgspec.json.decode(encode_transfer(decide(DEBIT, "3").transfer, wallet))
    assert (shown["amount"], shown["completed_amount"]) == ("10.00", "3.00")
    whole = msgspec.json.decode(encode_transfer(decide(DEBIT, None).transfer, wallet))
    assert "completed_amount" not in whole


@pytest.mark.parametrize("part", [0, 1_000, 1_001, -1])
def test_a_part_that_is_none_is_a_bug(part: int) -> None:
    wallet, transfer = holding(CREDIT)
    done = msgspec.structs.replace(settled_as(transfer, COMPLETED), part=part)
    event = TransferChanged(transfer=done, previous=PENDING, occurred_at=NOW)
    with pytest.raises(AssertionError, match="INV-4"):
        evolve(wallet, event)


def hold_the_rest(amount: str) -> SettleTransfer:
    return SettleTransfer(transfer_id=TRANSFER_ID, status="completed", amount=amount, final=False)


@pytest.mark.parametrize("kind", TransferType)
@pytest.mark.parametrize(
    ("last", "status", "reason", "completed"),
    [
        (complete(), COMPLETED, None, 1_000),
        (complete("5"), COMPLETED, None, 1_000),
        (complete("1"), COMPLETED, None, 600),
        (settle(TRANSFER_ID, "failed"), FAILED, "reverted", 500),
        (hold_the_rest("5"), COMPLETED, None, 1_000),
    ],
)
def test_parts_add_up_and_the_last_command_ends_the_hold(
    kind: TransferType,
    last: SettleTransfer,
    status: TransferStatus,
    reason: str | None,
    completed: int,
) -> None:
    batch = make_batch(make_cache(holding(kind)[0], pending=(holding(kind)[1],)))
    seen = []
    for command in (hold_the_rest("3"), hold_the_rest("2"), last):
        answer = body(batch.decide(request(command)))
        wallet = batch.write.wallets[WALLET_ID]
        seen.append((answer["status"], wallet.pending_debit + wallet.pending_credit))
    assert seen == [("pending", 700), ("pending", 500), (status, 0)]
    assert [one.event.type for one in batch.write.events] == [
        *["transfer.partially_completed"] * 2,
        f"transfer.{status}",
    ]
    after = batch.transfers[WALLET_ID, TRANSFER_ID]
    assert (after.completed_amount, after.failure_reason) == (completed, reason)
    came = completed if kind is DEBIT else 1_000 - completed
    assert batch.write.wallets[WALLET_ID].balance == 500 + came


def test_a_part_that_is_held_on_shows_what_is_left() -> None:
    batch = make_batch(make_cache(holding(CREDIT)[0], pending=(holding(CREDIT)[1],)))
    shown = body(batch.decide(request(hold_the_rest("3"))))
    assert (shown["completed_amount"], shown["pending_amount"]) == ("3.00", "7.00")
    assert (shown["status"], shown["settled_at"]) == ("pending", None)
    done = body(batch.decide(request(complete("1"))))
    assert done["completed_amount"] == "4.00"
    assert "pending_amount" not in done


def test_no_more_than_what_is_left_is_completed() -> None:
    batch = make_batch(make_cache(holding(CREDIT)[0], pending=(holding(CREDIT)[1],)))
    batch.decide(request(hold_the_rest("6")))
    more = batch.decide(request(complete("4.01")))
    assert isinstance(more, Refused)
    assert more.refusal.code is RefusalCode.AMOUNT_EXCEEDS_HOLD
    assert "holds 4.00" in more.refusal.detail
    assert body(batch.decide(request(complete("4"))))["status"] == "completed"


@pytest.mark.parametrize("action", OnExpiry)
def test_a_hold_of_which_a_part_is_completed_expires(action: OnExpiry) -> None:
    wallet, transfer = holding(CREDIT)
    expiring = msgspec.structs.replace(transfer, expiry=Expiry(LATER, action), part=300)
    wallet = msgspec.structs.replace(wallet, pending_credit=700)
    batch = make_batch(make_cache(wallet, pending=(expiring,)))
    answer = batch.decide(request(ExpireTransfer(transfer_id=TRANSFER_ID)))
    assert isinstance(answer, Applied)
    after = batch.transfers[WALLET_ID, TRANSFER_ID]
    failed = action is OnExpiry.FAIL
    assert after.status is (FAILED if failed else COMPLETED)
    assert after.completed_amount == (300 if failed else 1_000)
    assert batch.write.wallets[WALLET_ID].balance == 500 + (700 if failed else 0)


def test_a_frozen_wallet_completes_no_part() -> None:
    wallet, transfer = holding(CREDIT)
    frozen = msgspec.structs.replace(
        wallet, status=WalletStatus.FROZEN, freeze=Freeze(FreezeDirection.CREDIT)
    )
    refusal = decide_settlement(frozen, transfer, hold_the_rest("1"), now=LATER)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.WALLET_FROZEN


def test_only_a_hold_has_parts() -> None:
    wallet, transfer = holding(DEBIT)
    for status, previous in ((COMPLETED, None), (FAILED, PENDING)):
        odd = msgspec.structs.replace(settled_as(transfer, status), part=1)
        with pytest.raises(AssertionError, match="INV-4"):
            evolve(wallet, TransferChanged(transfer=odd, previous=previous, occurred_at=NOW))
