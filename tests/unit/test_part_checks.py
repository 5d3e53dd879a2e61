"""The checker finds parts that don't add up."""

import msgspec
import pytest

from tests.support.domain import TRANSFER_ID, WALLET_ID
from verification.facts import Balances, JournalEvent, TransferRow, WalletRow
from verification.journal_rules import WalletReplay
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
