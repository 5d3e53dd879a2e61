"""The checker finds holds that expire too early, too late, in another way, or not at all."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.support.domain import NOW, TRANSFER_ID, WALLET_ID
from verification.expiry_rules import check_expiry_rows, check_overdue
from verification.facts import Balances, Control, ExpiryRow, JournalEvent, TransferRow
from verification.journal_rules import TransferLifecycles, WalletReplay
from verification.violations import ViolationKind

DUE = NOW + timedelta(seconds=10)
HELD = JournalEvent(
    wallet_id=WALLET_ID,
    version=2,
    type="transfer.pending",
    after=Balances(balance=-5, pending_credit=5),
    transfer_id=TRANSFER_ID,
    transfer_type="credit",
    amount=5,
    expires_at=DUE,
    on_expiry="fail",
    occurred_at=NOW,
)
ROW = TransferRow(
    wallet_id=WALLET_ID,
    transfer_id=TRANSFER_ID,
    type="credit",
    status="pending",
    amount=5,
    created_version=2,
    expires_at=DUE,
    on_expiry="fail",
)


def settled(status: str, at: datetime, reason: str = "", **fields: Any) -> JournalEvent:
    values = {
        "version": 3,
        "type": f"transfer.{status}",
        "previous_status": "pending",
        "failure_reason": reason,
        "occurred_at": at,
        "after": Balances(),
    }
    return msgspec.structs.replace(HELD, **values | fields)


def kinds(*events: JournalEvent, was_rewound: bool = False) -> list[ViolationKind]:
    lifecycles = TransferLifecycles(WALLET_ID, was_rewound=was_rewound)
    return [found.kind for event in events for found in lifecycles.add(event)]


BEFORE = DUE - timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("event", "is_wrong"),
    [
        (settled("completed", BEFORE), False),
        (settled("failed", BEFORE, "reverted"), False),
        (settled("failed", DUE, "expired"), False),
        (settled("failed", BEFORE, "expired"), True),
        (settled("completed", DUE), True),
        (settled("failed", DUE, "reverted"), True),
    ],
)
def test_a_settlement_at_the_wrong_time_is_found(event: JournalEvent, is_wrong: bool) -> None:
    assert kinds(HELD, event) == [ViolationKind.EXPIRY_WRONG] * is_wrong
    # A recovered event was decided before it was recorded again.
    assert kinds(HELD, event, was_rewound=True) == []


def test_a_scheduled_transfer_completes_late_and_is_not_reverted_then() -> None:
    held = msgspec.structs.replace(HELD, on_expiry="complete")
    assert kinds(held, settled("completed", DUE, on_expiry="complete")) == []
    late = settled("failed", DUE, "reverted", on_expiry="complete")
    assert kinds(held, late) == [ViolationKind.EXPIRY_WRONG]


def test_an_expiry_that_changes_on_the_way_is_found() -> None:
    other = settled("completed", BEFORE, expires_at=DUE + timedelta(seconds=1))
    assert kinds(HELD, other) == [ViolationKind.SETTLEMENT_WITHOUT_TRANSFER]


@pytest.mark.parametrize("frozen", ["", "debit", "credit", "both"])
def test_a_scheduled_transfer_fails_only_if_its_direction_is_frozen(frozen: str) -> None:
    replay = WalletReplay(WALLET_ID)
    replay.version, replay.balances = 2, HELD.after
    replay.control = Control(status="frozen" if frozen else "active", frozen=frozen)
    event = settled("failed", DUE, "expired", on_expiry="complete")
    found = [one.kind for one in replay.add(event)]
    expected = frozen in ("", "debit")
    assert found == [ViolationKind.TRANSITION_FORBIDDEN] * expected


def test_rows_of_expiries_are_those_of_pending_transfers() -> None:
    row = ExpiryRow(wallet_id=WALLET_ID, transfer_id=TRANSFER_ID, expires_at=DUE)
    wrong = msgspec.structs.replace(row, expires_at=NOW)
    done = msgspec.structs.replace(ROW, status="completed")
    plain = msgspec.structs.replace(ROW, expires_at=None)

    def found(transfer: TransferRow, *rows: ExpiryRow) -> list[ViolationKind]:
        return [one.kind for one in check_expiry_rows([transfer], rows)]

    assert found(ROW, row) == found(done) == found(plain) == []
    assert found(ROW) == [ViolationKind.EXPIRY_ROW_MISSING]
    assert found(ROW, wrong) == found(done, row) == [ViolationKind.EXPIRY_ROW_UNSOUND]


def test_a_hold_that_is_overdue_is_found() -> None:
    assert not list(check_overdue([ROW], DUE))
    late = DUE + timedelta(microseconds=1)
    assert [one.kind for one in check_overdue([ROW], late)] == [ViolationKind.HOLD_OVERDUE]
    assert not list(check_overdue([msgspec.structs.replace(ROW, status="failed")], late))


def test_an_expiry_is_nobody_s_write() -> None:
    assert settled("failed", DUE, "expired").is_expiry
    assert settled("completed", DUE, on_expiry="complete").is_expiry
    assert not settled("completed", BEFORE, on_expiry="complete").is_expiry
    assert not settled("completed", DUE).is_expiry
    assert not HELD.is_expiry
