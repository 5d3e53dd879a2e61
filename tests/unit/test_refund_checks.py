"""The checker finds refunds that don't add up."""

import msgspec
import pytest

from tests.support.domain import WALLET_ID
from verification.fact_index import FactIndex
from verification.facts import Balances, ClientCall, Facts, JournalEvent, Refunded
from verification.real_time_rules import VersionLowerBounds
from verification.refund_rules import check_refunds
from verification.refusal_rules import check_refusals
from verification.row_rules import check_transfer_rows, transfers_of
from verification.violations import ViolationKind

PAID = JournalEvent(
    wallet_id=WALLET_ID,
    version=3,
    type="transfer.completed",
    after=Balances(balance=90),
    transfer_id="paid",
    transfer_type="credit",
    amount=10,
)
FIRST = JournalEvent(
    wallet_id=WALLET_ID,
    version=4,
    type="transfer.completed",
    after=Balances(balance=93),
    transfer_id="first",
    transfer_type="debit",
    amount=3,
    refunds="paid",
    refunded=Refunded(3, 0),
)
HELD = msgspec.structs.replace(
    FIRST,
    version=5,
    type="transfer.pending",
    after=Balances(balance=93, pending_debit=7),
    transfer_id="held",
    amount=7,
    refunded=Refunded(3, 7),
)
PART = msgspec.structs.replace(
    HELD,
    version=6,
    type="transfer.partially_completed",
    previous_status="pending",
    after=Balances(balance=95, pending_debit=5),
    part=2,
    refunded=Refunded(5, 5),
)
BACK = msgspec.structs.replace(
    PART,
    version=7,
    type="transfer.failed",
    after=Balances(balance=95),
    completed_before=2,
    refunded=Refunded(5, 0),
)
REFUNDS = [FIRST, HELD, PART, BACK]


def kinds(events: list[JournalEvent], refunds: list[JournalEvent]) -> list[ViolationKind]:
    return [found.kind for found in check_refunds(events, refunds)]


def changed(event: JournalEvent, **fields: object) -> JournalEvent:
    return msgspec.structs.replace(event, **fields)


def test_refunds_that_add_up_are_fine() -> None:
    assert kinds([PAID], REFUNDS) == []
    settled = changed(PAID, version=9, previous_status="pending", refunded=Refunded(5, 0))
    assert kinds([PAID, settled], REFUNDS) == []


def test_refunds_that_sum_up_to_more_are_found() -> None:
    more = changed(HELD, amount=8, refunded=Refunded(3, 8))
    assert kinds([PAID], [FIRST, more]) == [ViolationKind.REFUND_WRONG]
    less = changed(PAID, part=9)
    assert kinds([less], [FIRST, HELD]) == [ViolationKind.REFUND_WRONG]


@pytest.mark.parametrize(
    ("original", "refund"),
    [
        (None, FIRST),
        (changed(PAID, type="transfer.pending"), FIRST),
        (changed(PAID, transfer_type="debit"), FIRST),
        (changed(PAID, refunds="other", refunded=Refunded(1, 0)), FIRST),
        (changed(PAID, version=5), FIRST),
        (PAID, changed(FIRST, refunded=Refunded(2, 0))),
        (PAID, changed(FIRST, refunded=Refunded(3, 1))),
        (PAID, changed(FIRST, refunded=None)),
    ],
    ids=["unknown", "pending", "direction", "refund", "later", "sum", "pending sum", "no sum"],
)
def test_a_refund_of_what_is_not_refundable_is_found(
    original: JournalEvent | None, refund: JournalEvent
) -> None:
    found = kinds([] if original is None else [original], [refund])
    assert found[0] is ViolationKind.REFUND_WRONG


def test_an_event_of_the_refunded_transfer_says_what_is_refunded() -> None:
    later = changed(PAID, version=9, previous_status="pending")
    assert kinds([PAID, later], [FIRST]) == [ViolationKind.REFUND_WRONG]


def test_rows_have_what_is_refunded() -> None:
    journals: dict[str, list[JournalEvent]] = {WALLET_ID: [PAID, *REFUNDS]}
    rows = transfers_of(journals[WALLET_ID])
    assert rows["paid"].refunded == Refunded(5, 0)
    assert {rows[name].refunds for name in ("first", "held")} == {"paid"}
    assert list(check_transfer_rows(journals, rows.values())) == []
    for wrong in (None, Refunded(5, 1)):
        spoilt = rows | {"paid": msgspec.structs.replace(rows["paid"], refunded=wrong)}
        found = [one.kind for one in check_transfer_rows(journals, spoilt.values())]
        assert found == [ViolationKind.TRANSFER_ROW_DIFFERS]
    # One transfer alone, as in a check of a range.
    own: dict[str, list[JournalEvent]] = {WALLET_ID: [PAID]}
    journals_of_refunds: dict[str, list[JournalEvent]] = {WALLET_ID: REFUNDS}
    assert list(check_transfer_rows(own, [rows["paid"]], journals_of_refunds)) == []


def refusal(code: str, amount: int, transfer: str = "paid") -> list[ViolationKind]:
    """Of a refund that was refused when the wallet was at version 5, or 6."""
    names = {one.version: f"op{one.version}" for one in (PAID, *REFUNDS)}
    created = JournalEvent(
        wallet_id=WALLET_ID, version=1, type="wallet.created", after=Balances(), reference_id="op1"
    )
    money = changed(
        PAID, version=2, transfer_id="in", transfer_type="debit", amount=100, reference_id="op2"
    )
    events = [created, money] + [
        changed(one, reference_id=names[one.version]) for one in (PAID, *REFUNDS)
    ]
    history = [
        ClientCall(
            operation_id=f"op{number}",
            operation="debit",
            started=10 * number,
            ended=10 * number + 5,
            outcome="acknowledged",
            wallet_id=WALLET_ID,
            version=number,
        )
        for number in range(1, 8)
    ]
    refused = ClientCall(
        operation_id="asked",
        operation="refund",
        started=57,
        ended=62,
        outcome="refused",
        code=code,
        wallet_id=WALLET_ID,
        transfer_id=transfer,
        amount=amount,
    )
    index = FactIndex(Facts(journal=events, wallets=[], transfers=[], history=[*history, refused]))
    return [one.kind for one in check_refusals(index, VersionLowerBounds(index))]


@pytest.mark.parametrize(
    ("code", "amount", "transfer", "is_right"),
    [
        ("amount_exceeds_refundable", 1, "paid", True),
        ("amount_exceeds_refundable", 0, "paid", True),
        ("transfer_not_completed", 1, "paid", False),
        ("transfer_is_refund", 1, "paid", False),
        ("transfer_is_refund", 1, "first", True),
        ("transfer_not_completed", 1, "held", True),
        ("insufficient_funds", 1, "paid", False),
    ],
)
def test_a_refund_is_refused_for_a_reason_that_was_true(
    code: str, amount: int, transfer: str, is_right: bool
) -> None:
    expected = [] if is_right else [ViolationKind.REFUSAL_UNJUSTIFIED]
    assert refusal(code, amount, transfer) == expected
