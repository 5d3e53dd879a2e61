"""The rules: every guard, their order, and what an accepted command becomes."""

from typing import Any

import msgspec
import pytest

from tests.support.domain import (
    LATER,
    NOW,
    OTHER_WALLET_ID,
    TRANSFER_ID,
    WALLET_ID,
    make_transfer,
    make_wallet,
    settled,
)
from wallet.commands import CreateTransfer, CreateWallet, SettleTransfer
from wallet.events import TransferChanged, WalletCreated
from wallet.money import MINOR_MAX, from_minor
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode
from wallet.rules import decide_creation, decide_settlement, decide_transfer
from wallet.state import (
    FailureReason,
    Freeze,
    FreezeDirection,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)

PENDING, COMPLETED, FAILED = TransferStatus
NOT_ACTIVE = {
    WalletStatus.FROZEN: RefusalCode.WALLET_FROZEN,
    WalletStatus.CLOSED: RefusalCode.WALLET_CLOSED,
}


def not_active(status: WalletStatus) -> dict[str, Any]:
    """Fields of a frozen or closed wallet."""
    frozen = status is WalletStatus.FROZEN
    return {"status": status, "freeze": Freeze(FreezeDirection.BOTH) if frozen else None}


LARGEST = from_minor(MINOR_MAX, 2)


def transfer(kind: Any, amount: str, status: Any = "completed") -> CreateTransfer:
    return CreateTransfer(transfer_id=TRANSFER_ID, type=kind, amount=amount, status=status)


def settle(status: Any, **fields: Any) -> SettleTransfer:
    return SettleTransfer(transfer_id=TRANSFER_ID, status=status, **fields)


def refusal(decision: object) -> Refusal:
    assert isinstance(decision, Refusal), decision
    return decision


def code_of(decision: object) -> RefusalCode:
    return refusal(decision).code


def decide(wallet: Wallet | None, command: CreateTransfer) -> TransferChanged | Refusal:
    """Decide, and assert that the inputs were not modified."""
    before = msgspec.json.encode([wallet, command])
    decision = decide_transfer(wallet, command, now=LATER)
    assert msgspec.json.encode([wallet, command]) == before
    return decision


def decide_to_settle(
    wallet: Wallet | None, earlier: Transfer | None, command: SettleTransfer
) -> TransferChanged | Transfer | Refusal:
    before = msgspec.json.encode([wallet, earlier, command])
    decision = decide_settlement(wallet, earlier, command, now=LATER)
    assert msgspec.json.encode([wallet, earlier, command]) == before
    return decision


# -- creation ------------------------------------------------------------------------------------


def test_a_wallet_is_opened_as_it_was_asked_for() -> None:
    command = CreateWallet(
        wallet_id=WALLET_ID, currency="ETH", scale=18, reference_id="r", metadata={"a": "b"}
    )
    assert decide_creation(command, reference_taken=False, now=NOW) == WalletCreated(
        wallet_id=WALLET_ID,
        currency="ETH",
        scale=18,
        reference_id="r",
        metadata={"a": "b"},
        occurred_at=NOW,
    )


def test_a_taken_reference_is_refused_and_named() -> None:
    command = CreateWallet(wallet_id=WALLET_ID, currency="USD", scale=2, reference_id="r-1")
    refused = refusal(decide_creation(command, reference_taken=True, now=NOW))
    assert code_of(refused) is RefusalCode.REFERENCE_ID_TAKEN
    assert "'r-1'" in refused.detail


# -- transfers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TransferType)
def test_an_accepted_transfer_is_an_event_at_the_next_version(kind: TransferType) -> None:
    command = CreateTransfer(
        transfer_id=TRANSFER_ID,
        type=kind.value,
        status="completed",
        amount="1.5",
        reference_id="r",
        metadata={"a": "b"},
    )
    decision = decide(make_wallet(balance=150, version=7), command)
    assert decision == TransferChanged(
        transfer=Transfer(
            id=TRANSFER_ID,
            type=kind,
            status=COMPLETED,
            amount=150,
            created_version=8,
            created_at=LATER,
            reference_id="r",
            metadata={"a": "b"},
            settled_at=LATER,
        ),
        previous=None,
        occurred_at=LATER,
    )


def test_a_pending_transfer_is_not_settled_yet() -> None:
    decision = decide(make_wallet(), transfer("debit", "1", "pending"))
    assert isinstance(decision, TransferChanged)
    assert (decision.transfer.status, decision.transfer.settled_at) == (PENDING, None)


@pytest.mark.parametrize("kind", TransferType)
@pytest.mark.parametrize("status", ["pending", "completed"])
def test_a_transfer_of_no_wallet_is_refused(kind: TransferType, status: str) -> None:
    assert code_of(decide(None, transfer(kind, "1", status))) is RefusalCode.WALLET_NOT_FOUND


@pytest.mark.parametrize("kind", TransferType)
@pytest.mark.parametrize("status", NOT_ACTIVE)
def test_a_wallet_that_is_not_active_takes_no_transfers(
    kind: TransferType, status: WalletStatus
) -> None:
    wallet = make_wallet(balance=1_000, **not_active(status))
    refused = refusal(decide(wallet, transfer(kind, "1")))
    assert code_of(refused) is NOT_ACTIVE[status]
    assert f"The wallet is {status}" in refused.detail


@pytest.mark.parametrize("amount", ["0.001", "1.123", "1" + "0" * 37])
def test_an_amount_that_does_not_fit_the_wallet_points_to_itself(amount: str) -> None:
    refused = refusal(decide(make_wallet(balance=1_000), transfer("credit", amount)))
    assert code_of(refused) is RefusalCode.VALIDATION_ERROR
    assert refused.pointer == "/amount"
    assert "does not fit USD" in refused.detail


@pytest.mark.parametrize("status", ["pending", "completed"])
def test_a_credit_may_take_exactly_what_there_is_and_not_a_cent_more(status: str) -> None:
    wallet = make_wallet(balance=1_000)
    assert isinstance(decide(wallet, transfer("credit", "10", status)), TransferChanged)
    refused = refusal(decide(wallet, transfer("credit", "10.01", status)))
    assert code_of(refused) is RefusalCode.INSUFFICIENT_FUNDS
    assert "10.01 USD was asked" in refused.detail
    assert "10.00 is available" in refused.detail


@pytest.mark.parametrize("status", ["pending", "completed"])
def test_an_overdraft_limit_is_available_to_the_last_cent(status: str) -> None:
    wallet = make_wallet(balance=-50, overdraft_limit=100)
    assert isinstance(decide(wallet, transfer("credit", "0.5", status)), TransferChanged)
    refused = refusal(decide(wallet, transfer("credit", "0.51", status)))
    assert code_of(refused) is RefusalCode.INSUFFICIENT_FUNDS
    assert "0.50 is available" in refused.detail


def test_money_that_is_held_or_announced_can_not_be_taken_out() -> None:
    wallet = make_wallet(balance=0, pending_debit=1_000, pending_credit=1_000)
    assert code_of(decide(wallet, transfer("credit", "0.01"))) is RefusalCode.INSUFFICIENT_FUNDS


@pytest.mark.parametrize("status", ["pending", "completed"])
def test_a_debit_may_fill_the_wallet_to_the_brim_and_not_beyond(status: str) -> None:
    # Pending amounts may still be credited to the balance, so they count.
    wallet = make_wallet(balance=MINOR_MAX - 300, pending_debit=100, pending_credit=100)
    assert isinstance(decide(wallet, transfer("debit", "1", status)), TransferChanged)
    refused = refusal(decide(wallet, transfer("debit", "1.01", status)))
    assert code_of(refused) is RefusalCode.BALANCE_OUT_OF_RANGE
    assert LARGEST in refused.detail


def test_a_transfer_is_refused_for_the_first_reason_in_order() -> None:
    hopeless = transfer("credit", "0.001")
    assert code_of(decide(None, hopeless)) is RefusalCode.WALLET_NOT_FOUND
    frozen = make_wallet(**not_active(WalletStatus.FROZEN))
    assert code_of(decide(frozen, hopeless)) is RefusalCode.WALLET_FROZEN
    assert code_of(decide(make_wallet(), hopeless)) is RefusalCode.VALIDATION_ERROR
    assert code_of(decide(make_wallet(), transfer("credit", "1"))) is RefusalCode.INSUFFICIENT_FUNDS


# -- settlements ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"), [("completed", None), ("failed", FailureReason.REVERTED)]
)
def test_a_pending_transfer_is_settled_once_and_keeps_its_past(
    status: str, reason: FailureReason | None
) -> None:
    earlier = make_transfer(reference_id="r", metadata={"a": "1"})
    decision = decide_to_settle(make_wallet(pending_debit=100), earlier, settle(status))
    assert decision == TransferChanged(
        transfer=settled(earlier, TransferStatus(status), failure_reason=reason),
        previous=PENDING,
        occurred_at=LATER,
    )


def test_a_settlement_may_replace_the_reference_and_add_to_the_metadata() -> None:
    earlier = make_transfer(reference_id="r", metadata={"a": "1", "b": "2"})
    command = settle("completed", reference_id="s", metadata={"b": "3", "c": "4"})
    decision = decide_to_settle(make_wallet(pending_debit=100), earlier, command)
    assert isinstance(decision, TransferChanged)
    assert decision.transfer.reference_id == "s"
    assert decision.transfer.metadata == {"a": "1", "b": "3", "c": "4"}


def entries(count: int, *, prefix: str = "k") -> dict[str, str]:
    return {f"{prefix}{number}": "v" for number in range(count)}


@pytest.mark.parametrize("status", ["completed", "failed"])
@pytest.mark.parametrize(
    ("had", "sent", "is_taken"),
    [
        (entries(19), entries(1, prefix="new"), True),
        (entries(20), entries(20), True),
        (entries(20), entries(1, prefix="new"), False),
        (entries(1), entries(20, prefix="new"), False),
        (entries(20), {}, True),
        # From before the bound existed: its balance does not prevent the settlement.
        (entries(25), {}, True),
        (entries(25), entries(3), True),
        (entries(25), entries(1, prefix="new"), False),
    ],
)
def test_a_settlement_takes_metadata_to_its_bound_and_no_further(
    status: str, had: dict[str, str], sent: dict[str, str], is_taken: bool
) -> None:
    earlier = make_transfer(metadata=had)
    decision = decide_to_settle(
        make_wallet(pending_debit=100), earlier, settle(status, metadata=sent)
    )
    if is_taken:
        assert isinstance(decision, TransferChanged)
        assert decision.transfer.metadata == had | sent
        return
    assert code_of(decision) is RefusalCode.VALIDATION_ERROR
    assert isinstance(decision, Refusal)
    assert decision.pointer == "/metadata"
    assert f"{len(had)} entries" in decision.detail
    assert "20" in decision.detail


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_repeated_settlement_answers_with_the_transfer_as_it_is(status: str) -> None:
    done = settled(make_transfer(), TransferStatus(status))
    again = settle(status, reference_id="other", metadata={"other": "x"})
    assert decide_to_settle(make_wallet(), done, again) is done


@pytest.mark.parametrize(
    ("is_now", "wanted", "code"),
    [
        (COMPLETED, "failed", RefusalCode.TRANSFER_ALREADY_COMPLETED),
        (FAILED, "completed", RefusalCode.TRANSFER_ALREADY_FAILED),
    ],
)
def test_the_opposite_settlement_is_refused_with_the_current_status(
    is_now: TransferStatus, wanted: str, code: RefusalCode
) -> None:
    done = settled(make_transfer(), is_now)
    refused = refusal(decide_to_settle(make_wallet(), done, settle(wanted)))
    assert code_of(refused) is code
    assert f"The transfer is {is_now} since 2026-01-02T03:04:06" in refused.detail


@pytest.mark.parametrize("status", NOT_ACTIVE)
def test_a_wallet_that_is_not_active_releases_holds_but_completes_nothing(
    status: WalletStatus,
) -> None:
    wallet = make_wallet(pending_debit=100, **not_active(status))
    refused = decide_to_settle(wallet, make_transfer(), settle("completed"))
    assert code_of(refused) is NOT_ACTIVE[status]
    reverted = decide_to_settle(wallet, make_transfer(), settle("failed"))
    assert isinstance(reverted, TransferChanged)


def test_a_settlement_is_refused_for_the_first_reason_in_order() -> None:
    failed = settled(make_transfer(), FAILED)
    frozen = make_wallet(**not_active(WalletStatus.FROZEN))
    complete = settle("completed")
    assert code_of(decide_to_settle(None, None, complete)) is RefusalCode.WALLET_NOT_FOUND
    assert code_of(decide_to_settle(frozen, None, complete)) is RefusalCode.TRANSFER_NOT_FOUND
    already = decide_to_settle(frozen, failed, complete)
    assert code_of(already) is RefusalCode.TRANSFER_ALREADY_FAILED
    # A repeated settlement changes nothing, so it works on a frozen wallet too.
    done = settled(make_transfer(), COMPLETED)
    assert decide_to_settle(frozen, done, complete) is done


def test_a_settlement_of_another_wallet_s_transfer_finds_nothing() -> None:
    # The shard reads transfers by wallet and id; the rules get None.
    refused = decide_to_settle(make_wallet(id=OTHER_WALLET_ID), None, settle("completed"))
    assert code_of(refused) is RefusalCode.TRANSFER_NOT_FOUND


# -- what is remembered --------------------------------------------------------------------------


def test_only_decisions_about_an_existing_wallet_are_remembered() -> None:
    not_remembered = {
        RefusalCode.WALLET_NOT_FOUND,
        RefusalCode.TRANSFER_NOT_FOUND,
        RefusalCode.VALIDATION_ERROR,
        RefusalCode.IDEMPOTENCY_KEY_REUSED,
    }
    assert set(RefusalCode) - not_remembered == STORED_UNDER_KEY
