"""The fold: the executable table is the designed one, and `evolve` does what it says."""

from itertools import product

import pytest

from tests.support.domain import LATER, NOW, WALLET_ID, make_transfer, make_wallet, settled
from wallet.commands import CloseWallet, UpdateWallet
from wallet.control_rules import decide_control
from wallet.events import TransferChanged, WalletChanged, WalletCreated
from wallet.fold import BALANCE_EFFECTS, evolve, fold_table
from wallet.money import MINOR_MAX
from wallet.state import Transfer, TransferStatus, TransferType, Wallet, WalletStatus

DEBIT, CREDIT = TransferType.DEBIT, TransferType.CREDIT
PENDING, COMPLETED, FAILED = TransferStatus

DESIGNED = {
    # type, before, after: balance, pending_debit, pending_credit
    (DEBIT, None, PENDING): (0, +1, 0),
    (DEBIT, None, COMPLETED): (+1, 0, 0),
    (CREDIT, None, PENDING): (-1, 0, +1),
    (CREDIT, None, COMPLETED): (-1, 0, 0),
    (DEBIT, PENDING, COMPLETED): (+1, -1, 0),
    (DEBIT, PENDING, FAILED): (0, -1, 0),
    (CREDIT, PENDING, COMPLETED): (0, 0, -1),
    (CREDIT, PENDING, FAILED): (+1, 0, -1),
}
"""Repeated here on purpose: an error in the code's table would lose money."""


def event_of(
    kind: TransferType, before: TransferStatus | None, after: TransferStatus, amount: int = 100
) -> TransferChanged:
    transfer = make_transfer(type=kind, amount=amount)
    if after is not PENDING:
        transfer = settled(transfer, after)
    return TransferChanged(transfer=transfer, previous=before, occurred_at=LATER)


def sums(wallet: Wallet) -> tuple[int, int, int]:
    return wallet.balance, wallet.pending_debit, wallet.pending_credit


def test_the_executable_table_is_the_designed_one() -> None:
    assert {key: tuple(effect) for key, effect in BALANCE_EFFECTS.items()} == DESIGNED


@pytest.mark.parametrize(("kind", "before", "after"), DESIGNED)
def test_every_transition_changes_the_three_balances_and_nothing_else(
    kind: TransferType, before: TransferStatus | None, after: TransferStatus
) -> None:
    wallet = make_wallet(
        balance=1_000, pending_debit=1_000, pending_credit=1_000, metadata={"a": "b"}
    )
    moved = evolve(wallet, event_of(kind, before, after, amount=7))
    by_balance, by_debit, by_credit = DESIGNED[kind, before, after]
    assert sums(moved) == (1_000 + 7 * by_balance, 1_000 + 7 * by_debit, 1_000 + 7 * by_credit)
    assert moved.version == wallet.version + 1
    assert moved.updated_at == LATER
    unmoved = {"balance", "pending_debit", "pending_credit", "version", "updated_at"}
    for field in set(Wallet.__struct_fields__) - unmoved:
        assert getattr(moved, field) == getattr(wallet, field), field


def test_no_other_transition_exists() -> None:
    every = set(product(TransferType, (None, *TransferStatus), TransferStatus))
    for kind, before, after in every - set(DESIGNED):
        with pytest.raises(KeyError):
            evolve(make_wallet(balance=1_000), event_of(kind, before, after))


@pytest.mark.parametrize("kind", TransferType)
def test_holding_and_completing_is_the_same_as_completing_at_once(kind: TransferType) -> None:
    before = make_wallet(balance=500)
    at_once = evolve(before, event_of(kind, None, COMPLETED))
    held = evolve(before, event_of(kind, None, PENDING))
    assert sums(evolve(held, event_of(kind, PENDING, COMPLETED))) == sums(at_once)


@pytest.mark.parametrize("kind", TransferType)
def test_holding_and_reverting_restores_the_balances(kind: TransferType) -> None:
    before = make_wallet(balance=500)
    held = evolve(before, event_of(kind, None, PENDING))
    assert sums(held) != sums(before)
    assert sums(evolve(held, event_of(kind, PENDING, FAILED))) == sums(before)


def test_a_wallet_begins_at_version_1_with_no_money_in_it() -> None:
    event = WalletCreated(
        wallet_id=WALLET_ID,
        currency="JPY",
        scale=0,
        reference_id="r",
        metadata={"k": "v"},
        occurred_at=NOW,
    )
    assert evolve(None, event) == Wallet(
        id=WALLET_ID,
        currency="JPY",
        scale=0,
        version=1,
        reference_id="r",
        metadata={"k": "v"},
        created_at=NOW,
        updated_at=NOW,
    )


def test_a_second_creation_is_a_bug() -> None:
    event = WalletCreated(
        wallet_id=WALLET_ID,
        currency="USD",
        scale=2,
        reference_id=None,
        metadata={},
        occurred_at=NOW,
    )
    with pytest.raises(AssertionError, match="created once"):
        evolve(make_wallet(), event)


def test_a_transfer_without_a_wallet_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="belongs to a wallet"):
        evolve(None, event_of(DEBIT, None, COMPLETED))


def test_an_overdrawn_wallet_is_a_bug_unless_its_limit_allows_it() -> None:
    with pytest.raises(AssertionError, match="INV-1"):
        evolve(make_wallet(balance=99), event_of(CREDIT, None, COMPLETED))
    with pytest.raises(AssertionError, match="INV-1"):
        evolve(make_wallet(balance=0, overdraft_limit=99), event_of(CREDIT, None, COMPLETED))
    allowed = evolve(make_wallet(balance=0, overdraft_limit=100), event_of(CREDIT, None, COMPLETED))
    assert allowed.balance == -100


@pytest.mark.parametrize("kind", TransferType)
def test_a_closed_wallet_never_changes(kind: TransferType) -> None:
    closed = make_wallet(status=WalletStatus.CLOSED)
    change = decide_control(make_wallet(), UpdateWallet(metadata={"a": "b"}), now=LATER)
    assert isinstance(change, WalletChanged)
    for event in (event_of(kind, None, PENDING), change):
        with pytest.raises(AssertionError, match="INV-14"):
            evolve(closed, event)


def test_what_is_not_empty_is_not_closed() -> None:
    closing = decide_control(make_wallet(), CloseWallet(), now=LATER)
    assert isinstance(closing, WalletChanged)
    with pytest.raises(AssertionError, match="INV-14"):
        evolve(make_wallet(pending_debit=1), closing)


@pytest.mark.parametrize("kind", TransferType)
def test_a_hold_released_twice_is_a_bug(kind: TransferType) -> None:
    with pytest.raises(AssertionError, match="INV-2"):
        evolve(make_wallet(balance=1_000), event_of(kind, PENDING, FAILED))


def test_more_than_an_amount_may_be_is_a_bug_counting_what_is_pending() -> None:
    full = make_wallet(balance=MINOR_MAX - 150, pending_debit=50)
    assert evolve(full, event_of(DEBIT, None, PENDING)).pending_debit == 150
    with pytest.raises(AssertionError, match="INV-3"):
        evolve(full, event_of(DEBIT, None, PENDING, amount=101))


def test_the_printed_table_has_a_row_a_transition() -> None:
    printed = fold_table().splitlines()
    assert printed[0] == "| event | balance | pending_debit | pending_credit |"
    assert len(printed) == 2 + len(DESIGNED)
    assert "| credit pending | −a |  | +a |" in printed
    assert "| pending debit → completed | +a | −a |  |" in printed


def test_evolving_leaves_the_value_before_as_it_was() -> None:
    before: Wallet = make_wallet(balance=500)
    transfer: Transfer = make_transfer()
    evolve(before, TransferChanged(transfer=transfer, previous=None, occurred_at=LATER))
    assert before == make_wallet(balance=500)
