"""The rules of a wallet's control: what may change, when, and what a repetition is."""

from typing import Any

import msgspec
import pytest

from tests.support.domain import LATER, NOW, TRANSFER_ID, make_transfer, make_wallet
from wallet.api_limits import METADATA_ENTRIES_MAX
from wallet.commands import (
    CloseWallet,
    ControlWallet,
    CreateTransfer,
    CreateWallet,
    FreezeWallet,
    SettleTransfer,
    UnfreezeWallet,
    UpdateWallet,
)
from wallet.control_rules import decide_control
from wallet.events import EventType, TransferChanged, WalletChanged, WalletCreated
from wallet.fold import evolve
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode
from wallet.rules import decide_creation, decide_settlement, decide_transfer
from wallet.state import Freeze, FreezeDirection, TransferStatus, TransferType, Wallet, WalletStatus

FROZEN = {"status": WalletStatus.FROZEN, "freeze": Freeze(FreezeDirection.BOTH, "why")}
CLOSED = {"status": WalletStatus.CLOSED}
COMMANDS: dict[str, ControlWallet] = {
    "update": UpdateWallet(metadata={"a": "1"}),
    "freeze": FreezeWallet(direction="credit", reason="lost card"),
    "unfreeze": UnfreezeWallet(),
    "close": CloseWallet(reason="gone"),
}


def after(wallet: Wallet, command: ControlWallet) -> Wallet:
    event = decide_control(wallet, command, now=LATER)
    assert isinstance(event, WalletChanged), event
    return evolve(wallet, event)


def code(wallet: Wallet | None, command: ControlWallet) -> RefusalCode:
    refusal = decide_control(wallet, command, now=LATER)
    assert isinstance(refusal, Refusal), refusal
    return refusal.code


def new_transfer(kind: Any) -> CreateTransfer:
    return CreateTransfer(transfer_id=TRANSFER_ID, type=kind, amount="1", status="pending")


@pytest.mark.parametrize("direction", ["both", "debit", "credit"])
@pytest.mark.parametrize("kind", list(TransferType))
def test_a_frozen_direction_takes_and_completes_nothing(direction: Any, kind: TransferType) -> None:
    held = {"pending_debit": 100, "pending_credit": 100, "balance": 100}
    wallet = after(make_wallet(**held), FreezeWallet(direction=direction, reason="audit"))
    pending = make_transfer(type=kind)
    stopped = direction in ("both", kind)
    decisions = [
        decide_transfer(wallet, new_transfer(kind), now=LATER),
        decide_settlement(wallet, pending, settlement("completed"), now=LATER),
    ]
    for decision in decisions:
        if not stopped:
            assert isinstance(decision, TransferChanged)
            continue
        assert isinstance(decision, Refusal)
        assert decision.code is RefusalCode.WALLET_FROZEN
        assert "(reason: audit)" in decision.detail
    reverted = decide_settlement(wallet, pending, settlement("failed"), now=LATER)
    assert isinstance(reverted, TransferChanged), "reverting always works"


def settlement(status: Any) -> SettleTransfer:
    return SettleTransfer(transfer_id=TRANSFER_ID, status=status)


def test_a_completed_transfer_of_a_frozen_wallet_is_still_the_answer() -> None:
    done = make_transfer(status=TransferStatus.COMPLETED, settled_at=NOW)
    assert (
        decide_settlement(make_wallet(**FROZEN), done, settlement("completed"), now=LATER) is done
    )


def test_freezing_and_unfreezing_change_no_balance() -> None:
    wallet = make_wallet(balance=5, pending_debit=7, pending_credit=3, metadata={"a": "b"})
    frozen = after(wallet, COMMANDS["freeze"])
    assert (frozen.status, frozen.frozen, frozen.frozen_reason, frozen.version) == (
        WalletStatus.FROZEN,
        FreezeDirection.CREDIT,
        "lost card",
        wallet.version + 1,
    )
    active = after(frozen, UnfreezeWallet(reason="found"))
    assert (active.status, active.freeze) == (WalletStatus.ACTIVE, None)
    for one in (frozen, active):
        assert (one.balance, one.pending_debit, one.pending_credit) == (5, 7, 3)
        assert one.metadata == {"a": "b"}


def test_a_second_freeze_replaces_direction_and_reason() -> None:
    frozen = after(after(make_wallet(), COMMANDS["freeze"]), FreezeWallet(direction="debit"))
    assert frozen.freeze == Freeze(FreezeDirection.DEBIT)


@pytest.mark.parametrize(
    ("wallet", "command"),
    [
        (make_wallet(), COMMANDS["unfreeze"]),
        (make_wallet(**FROZEN), FreezeWallet(direction="both", reason="why")),
        (make_wallet(**CLOSED), COMMANDS["close"]),
        (make_wallet(metadata={"a": "1"}), COMMANDS["update"]),
        (make_wallet(), UpdateWallet(metadata={"absent": None}, overdraft_limit="0")),
    ],
)
def test_what_changes_nothing_is_the_wallet_itself(wallet: Wallet, command: Any) -> None:
    assert decide_control(wallet, command, now=LATER) is wallet


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wallet_that_has_moved_is_not_changed(name: str) -> None:
    command = COMMANDS[name]
    assert code(make_wallet(version=5), msgspec.structs.replace(command, if_match=(4,))) is (
        RefusalCode.PRECONDITION_FAILED
    )
    fresh = msgspec.structs.replace(command, if_match=(4, 5))
    assert not isinstance(decide_control(make_wallet(version=5), fresh, now=LATER), Refusal)
    assert code(None, fresh) is RefusalCode.WALLET_NOT_FOUND


@pytest.mark.parametrize("name", ["update", "freeze", "unfreeze"])
def test_nothing_changes_a_closed_wallet(name: str) -> None:
    assert code(make_wallet(**CLOSED), COMMANDS[name]) is RefusalCode.WALLET_CLOSED


@pytest.mark.parametrize("held", ["balance", "pending_debit", "pending_credit"])
def test_only_an_empty_wallet_is_closed(held: str) -> None:
    refusal = decide_control(make_wallet(**{held: 1}), CloseWallet(), now=LATER)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.WALLET_NOT_EMPTY
    assert f"{held} 0.01 USD" in refusal.detail
    closed = after(make_wallet(**FROZEN), CloseWallet())
    assert (closed.status, closed.freeze) == (WalletStatus.CLOSED, None)
    for kind in TransferType:
        decision = decide_transfer(closed, new_transfer(kind), now=LATER)
        assert isinstance(decision, Refusal)
        assert decision.code is RefusalCode.WALLET_CLOSED


def test_metadata_is_merged_by_the_rules_of_a_merge_patch() -> None:
    wallet = make_wallet(metadata={"kept": "1", "changed": "1", "removed": "1"})
    patch = UpdateWallet(metadata={"changed": "2", "removed": None, "new": ""})
    assert after(wallet, patch).metadata == {"kept": "1", "changed": "2", "new": ""}
    replaced = UpdateWallet(replace_metadata=True, metadata={"only": "1"})
    assert after(wallet, replaced).metadata == {"only": "1"}


def test_metadata_has_at_most_so_many_entries() -> None:
    full = make_wallet(metadata={str(n): "" for n in range(METADATA_ENTRIES_MAX)})
    one_more = UpdateWallet(metadata={"x": ""})
    assert code(full, one_more) is RefusalCode.METADATA_FULL
    exchanged = UpdateWallet(metadata={"x": "", "0": None})
    assert len(after(full, exchanged).metadata) == METADATA_ENTRIES_MAX


def test_an_overdraft_limit_is_never_below_what_is_used() -> None:
    wallet = make_wallet(balance=-150, overdraft_limit=200)
    assert after(wallet, UpdateWallet(overdraft_limit="1.5")).overdraft_limit == 150
    refusal = decide_control(wallet, UpdateWallet(overdraft_limit="1.49"), now=LATER)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.OVERDRAFT_IN_USE
    assert "uses 1.50 USD" in refusal.detail


def test_a_limit_has_the_decimals_of_the_currency() -> None:
    refusal = decide_control(make_wallet(), UpdateWallet(overdraft_limit="0.001"), now=LATER)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.pointer) == (RefusalCode.VALIDATION_ERROR, "/overdraft_limit")


def test_a_wallet_is_opened_with_a_limit_that_can_be_used_at_once() -> None:
    command = CreateWallet(wallet_id=make_wallet().id, currency="USD", scale=2, overdraft_limit="1")
    event = decide_creation(command, reference_taken=False, now=NOW)
    assert isinstance(event, WalletCreated)
    wallet = evolve(None, event)
    assert wallet.overdraft_limit == 100
    credit = decide_transfer(wallet, new_transfer("credit"), now=LATER)
    assert isinstance(credit, TransferChanged)
    assert evolve(wallet, credit).balance == -100


def test_an_event_says_why_and_what_the_wallet_is_like_then() -> None:
    event = decide_control(make_wallet(overdraft_limit=9), COMMANDS["freeze"], now=LATER)
    assert isinstance(event, WalletChanged)
    assert (event.type, event.reason, event.overdraft_limit, event.occurred_at) == (
        EventType.WALLET_FROZEN,
        "lost card",
        9,
        LATER,
    )


def test_every_refusal_that_a_later_state_could_change_is_stored() -> None:
    # Otherwise an earlier delivery could be applied after its client was told of the refusal.
    assert {
        RefusalCode.PRECONDITION_FAILED,
        RefusalCode.OVERDRAFT_IN_USE,
        RefusalCode.METADATA_FULL,
        RefusalCode.WALLET_NOT_EMPTY,
        RefusalCode.WALLET_CLOSED,
    } <= STORED_UNDER_KEY
