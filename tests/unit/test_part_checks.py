"""The checker finds parts that don't add up."""

import msgspec
import pytest

from tests.support.domain import TRANSFER_ID, WALLET_ID
from verification.fact_index import FactIndex
from verification.facts import Balances, ClientCall, Facts, JournalEvent, TransferRow, WalletRow
from verification.journal_rules import WalletReplay
from verification.real_time_rules import VersionLowerBounds
from verification.refusal_rules import check_refusals
from verification.row_rules import check_conservation, check_transfer_rows, transfers_of
from verification.violations import ViolationKind

HELD = JournalEvent(
    wallet_id=WALLET_ID,
    version=2,
    type="transfer.pending",
    after=Balances(balance=90, pending_credit=10),
    transfer_id=TRANSFER_ID,
    transfer_type="credit",
    amount=10,
)
DONE = msgspec.structs.replace(
    HELD,
    version=3,
    type="transfer.completed",
    previous_status="pending",
    after=Balances(balance=97),
    part=3,
)


def kinds(event: JournalEvent) -> list[ViolationKind]:
    replay = WalletReplay(WALLET_ID)
    replay.version, replay.balances = 2, HELD.after
    return [found.kind for found in replay.add(event)]


def test_a_part_leaves_and_the_rest_comes_back() -> None:
    assert kinds(DONE) == []
    whole = msgspec.structs.replace(DONE, part=0, after=Balances(balance=90))
    assert kinds(whole) == []


@pytest.mark.parametrize("balance", [90, 96, 98, 100, 103])
def test_a_part_that_moved_something_else_is_found(balance: int) -> None:
    wrong = msgspec.structs.replace(DONE, after=Balances(balance=balance))
    assert kinds(wrong) == [ViolationKind.FOLD_BROKEN]


@pytest.mark.parametrize(
    "changed", [{"part": 10}, {"part": 11}, {"part": -1}, {"type": "transfer.failed"}], ids=str
)
def test_a_part_that_is_none_is_found(changed: dict[str, object]) -> None:
    wrong = msgspec.structs.replace(DONE, **changed)
    assert kinds(wrong) == [ViolationKind.TRANSITION_FORBIDDEN]


def test_rows_have_the_part_and_money_is_conserved() -> None:
    (row,) = transfers_of([HELD, DONE]).values()
    assert (row.part, row.completed) == (3, 3)
    journals: dict[str, list[JournalEvent]] = {WALLET_ID: [HELD, DONE]}
    assert list(check_transfer_rows(journals, [row])) == []
    without = msgspec.structs.replace(row, part=0)
    found = [one.kind for one in check_transfer_rows(journals, [without])]
    assert found == [ViolationKind.TRANSFER_ROW_DIFFERS]

    came_in = TransferRow(
        wallet_id=WALLET_ID,
        transfer_id="t",
        type="debit",
        status="completed",
        amount=100,
        created_version=1,
    )
    wallet = WalletRow(wallet_id=WALLET_ID, version=3, balances=Balances(balance=97))
    assert list(check_conservation([wallet], [came_in, row])) == []
    assert list(check_conservation([wallet], [came_in, without]))


def refusal_of_a_part(amount: int, *, started: int) -> list[ViolationKind]:
    """Of 10 that are held from version 2 on, 4 complete at 3 and 5 more, the last of it, at 4."""
    part = msgspec.structs.replace(
        DONE, type="transfer.partially_completed", after=Balances(balance=93), part=4
    )
    done = msgspec.structs.replace(DONE, version=4, after=Balances(balance=98), part=9)
    created = JournalEvent(wallet_id=WALLET_ID, version=1, type="wallet.created", after=Balances())
    events = [
        msgspec.structs.replace(one, reference_id=f"op{one.version}")
        for one in (created, HELD, part, done)
    ]
    history = [
        ClientCall(
            operation_id=event.reference_id,
            operation="credit",
            started=10 * event.version,
            ended=10 * event.version + 5,
            outcome="acknowledged",
            wallet_id=WALLET_ID,
            version=event.version,
        )
        for event in events
    ]
    refused = ClientCall(
        operation_id="asked",
        operation="complete",
        started=started,
        ended=started + 1,
        outcome="refused",
        code="amount_exceeds_hold",
        wallet_id=WALLET_ID,
        transfer_id=TRANSFER_ID,
        amount=amount,
    )
    index = FactIndex(Facts(journal=events, wallets=[], transfers=[], history=[*history, refused]))
    return [one.kind for one in check_refusals(index, VersionLowerBounds(index))]


@pytest.mark.parametrize(
    ("amount", "started", "is_right"),
    [
        (11, 26, True),
        (10, 26, False),
        # While the part is completed, and after it.
        (7, 31, True),
        (7, 36, True),
        (6, 31, False),
        (6, 36, False),
        # Settled: the refusal is that it is, unless it never had as much.
        (7, 46, False),
        (11, 46, True),
    ],
)
def test_more_than_is_held_is_refused(amount: int, started: int, *, is_right: bool) -> None:
    expected = [] if is_right else [ViolationKind.REFUSAL_UNJUSTIFIED]
    assert refusal_of_a_part(amount, started=started) == expected
