"""The checker: merged reads, lagging projections, and each violation reported once."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from verification.facts import Balances, Control, JournalEvent, TransferRow
from verification.findings import Findings
from verification.journal_rules import WalletReplay
from verification.merge_join import merge_join
from verification.projection_rules import check_transfer_projection
from verification.violations import Violation, ViolationKind

Row = tuple[str, str, int]


class FakePages:
    """Rows that come so many at a time."""

    def __init__(self, rows: Sequence[Row], size: int) -> None:
        self._rows = list(rows)
        self._size = size

    async def next(self) -> list[Row]:
        page, self._rows = self._rows[: self._size], self._rows[self._size :]
        return page


def key_of(row: Any) -> tuple[str, str]:
    return (row[0], row[1])


async def merged(**statements: FakePages) -> dict[tuple[str, str], dict[str, list[Row]]]:
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    async for group in merge_join(statements, key_of):  # type: ignore[arg-type]  # tuples do
        assert not group.keys() & found.keys(), "a key occurs once, with all its rows"
        found |= group  # type: ignore[arg-type]  # tuples do
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_rows_of_a_key_come_together_whatever_the_pages(size: int) -> None:
    random = Random(size)
    left = sorted((random.choice("ab"), random.choice("xyz"), n) for n in range(40))
    right = sorted({(random.choice("bc"), random.choice("wxy"), 0) for _ in range(9)})
    found = await merged(left=FakePages(left, size), right=FakePages(right, size + 1))
    for name, rows in (("left", left), ("right", right)):
        reported = [row for _, group in sorted(found.items()) for row in group.get(name, ())]
        assert reported == rows
    assert all(
        key_of(row) == key
        for key, group in found.items()
        for rows in group.values()
        for row in rows
    )


async def test_nothing_side_by_side_with_nothing_is_nothing() -> None:
    assert await merged(left=FakePages([], 5), right=FakePages([], 5)) == {}


HELD = JournalEvent(
    wallet_id="w",
    version=2,
    type="transfer.pending",
    after=Balances(pending_debit=5),
    transfer_id="t",
    transfer_type="debit",
    amount=5,
)
DONE = msgspec.structs.replace(
    HELD, version=4, type="transfer.completed", after=Balances(balance=5), previous_status="pending"
)
HELD_ROW = TransferRow(
    wallet_id="w", transfer_id="t", type="debit", status="pending", amount=5, created_version=2
)
DONE_ROW = msgspec.structs.replace(HELD_ROW, status="completed")


def breaches(found: TransferRow | None, version: int, wallet_version: int) -> list[ViolationKind]:
    return [
        violation.kind
        for violation in check_transfer_projection(
            [HELD, DONE], found, version=version, wallet_version=wallet_version
        )
    ]


@pytest.mark.parametrize(
    ("found", "version", "wallet_version", "expected"),
    [
        (None, 0, 1, []),
        (None, 0, 2, [ViolationKind.PROJECTION_MISSING]),
        (HELD_ROW, 2, 2, []),
        (HELD_ROW, 2, 3, []),
        (HELD_ROW, 2, 4, [ViolationKind.PROJECTION_BEHIND]),
        (HELD_ROW, 4, 4, [ViolationKind.PROJECTION_DIFFERS]),
        (HELD_ROW, 3, 4, [ViolationKind.PROJECTION_DIFFERS]),
        (HELD_ROW, 1, 1, [ViolationKind.PROJECTION_DIFFERS]),
        (DONE_ROW, 2, 2, [ViolationKind.PROJECTION_DIFFERS]),
        (DONE_ROW, 4, 4, []),
        (DONE_ROW, 4, 1, []),  # ahead of its wallet, whose earlier events are not projected yet
    ],
)
def test_a_transfers_projection_is_what_the_events_up_to_it_left(
    found: TransferRow | None, version: int, wallet_version: int, expected: list[ViolationKind]
) -> None:
    assert breaches(found, version, wallet_version) == expected


def test_a_violation_is_reported_once_per_wallet_and_always_counted() -> None:
    reported: list[Violation] = []
    findings = Findings(reported.append)
    gap = Violation(kind=ViolationKind.VERSION_GAP, wallet_id="w", detail="1")
    other = msgspec.structs.replace(gap, wallet_id="v")
    findings.add([gap, msgspec.structs.replace(gap, detail="2"), other])
    assert reported == [gap, other]
    assert findings.counts == {ViolationKind.VERSION_GAP: 3}
    findings.start_next_range()
    findings.add([gap])
    assert findings.total == 4


def journal_of(*steps: tuple[str, Control | None, int]) -> list[ViolationKind]:
    """What the checker finds of a wallet with 1 unit; a step: type, control, balance after it."""
    replay = WalletReplay("w")
    events = [("wallet.created", Control(overdraft_limit=1), 0), ("transfer.completed", None, 1)]
    found: list[ViolationKind] = []
    for number, (type, control, balance) in enumerate([*events, *steps], start=1):
        moves = type.startswith("transfer.")
        event = JournalEvent(
            wallet_id="w",
            version=number,
            type=type,
            after=Balances(balance=balance),
            transfer_id=f"t{number}" if moves else "",
            transfer_type=("debit" if number == 2 else "credit") if moves else "",
            amount=1 if moves else 0,
            control=control,
        )
        found += [violation.kind for violation in replay.add(event)]
    return found


FROZEN = Control(status="frozen", frozen="credit", overdraft_limit=1)


def test_a_transfer_of_a_frozen_wallet_is_found() -> None:
    out = ("transfer.completed", None, 0)
    assert journal_of(out) == []
    freeze = ("wallet.frozen", FROZEN, 1)
    assert journal_of(freeze, out) == [ViolationKind.TRANSITION_FORBIDDEN]
    other = ("wallet.frozen", Control(status="frozen", frozen="debit", overdraft_limit=1), 1)
    assert journal_of(other, out) == []


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([("wallet.frozen", FROZEN, 2)], ViolationKind.FOLD_BROKEN),
        ([("wallet.frozen", Control(overdraft_limit=1), 1)], ViolationKind.TRANSITION_FORBIDDEN),
        ([("wallet.unfrozen", Control(overdraft_limit=1), 1)], ViolationKind.TRANSITION_FORBIDDEN),
        (
            [("wallet.closed", Control(status="closed", overdraft_limit=1), 1)],
            ViolationKind.FOLD_BROKEN,
        ),
        (
            [("wallet.frozen", Control(status="frozen", frozen="both"), 1)],
            ViolationKind.TRANSITION_FORBIDDEN,
        ),
        (
            [
                ("transfer.completed", None, 0),
                ("transfer.completed", None, -1),
                ("wallet.updated", Control(), -1),
            ],
            ViolationKind.BALANCE_BELOW_LIMIT,
        ),
    ],
)
def test_each_wrong_change_of_a_wallet_is_found(
    steps: list[tuple[str, Control | None, int]], kind: ViolationKind
) -> None:
    assert journal_of(*steps) == [kind]
