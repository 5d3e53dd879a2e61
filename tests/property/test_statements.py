"""Opening balance and changes of a statement add up to its closing balance, however it is cut."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.domain import TRANSFER_ID
from wallet.ids import TransferId
from wallet.statement import (
    Balances,
    BrokenStatement,
    JournalLine,
    StatementCheck,
    StatementEntry,
)

START = datetime(2026, 1, 1, tzinfo=UTC)

changes = st.tuples(
    st.integers(-(10**12), 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.booleans()
)


def lines_of(changed: list[tuple[int, int, int, bool]]) -> list[JournalLine]:
    """Events: some move money and some don't."""
    balances = accumulate((change if moves else 0 for change, _, _, moves in changed))
    lines: list[JournalLine] = []
    for number, (balance, (change, credit, debit, moves)) in enumerate(
        zip(balances, changed, strict=True), 1
    ):
        fields: dict[str, Any] = {}
        if moves:
            kind = "debit" if change >= 0 else "credit"
            fields = {"transfer_id": TransferId(TRANSFER_ID), "transfer_type": kind}
        after = Balances(
            version=number, balance=balance, pending_credit=credit, pending_debit=debit
        )
        time = START + timedelta(seconds=number)
        lines.append(
            JournalLine(
                type="transfer.completed", time=time, after=after, amount=abs(change), **fields
            )
        )
    return lines


def bounds_of(lines: list[JournalLine], first: int, last: int) -> tuple[Balances, Balances]:
    states = [Balances(version=0), *(line.after for line in lines)]
    return states[first], states[last]


@st.composite
def statements(draw: Any) -> tuple[list[JournalLine], int, int, int, int]:
    lines = lines_of(draw(st.lists(changes, max_size=30)))
    last = draw(st.integers(0, len(lines)))
    first = draw(st.integers(0, last))
    return lines, first, last, draw(st.integers(1, 9)), draw(st.sampled_from([0, 2, 18]))


def read_all(check: StatementCheck, lines: list[JournalLine], size: int) -> None:
    entries_of(check, lines, size)
    check.end()


def entries_of(check: StatementCheck, lines: list[JournalLine], size: int) -> list[StatementEntry]:
    return [
        entry
        for start in range(0, len(lines), size)
        for entry in check.entries(lines[start : start + size])
    ]


@given(statements())
def test_opening_and_changes_add_up_to_closing(
    drawn: tuple[list[JournalLine], int, int, int, int],
) -> None:
    lines, first, last, size, scale = drawn
    opening, closing = bounds_of(lines, first, last)
    check = StatementCheck(opening, closing, scale=scale)

    entries = entries_of(check, lines[first:last], size)
    check.end()

    moving = [line for line in lines[first:last] if line.transfer_id is not None]
    assert [entry.version for entry in entries] == [line.after.version for line in moving]
    assert check.entry_count == len(entries)
    total = Decimal(opening.view(scale).balance)
    for entry in entries:
        total += Decimal(entry.balance_change)
        assert total == Decimal(entry.balance)
    assert total == Decimal(closing.view(scale).balance)


@given(statements(), st.data())
def test_a_statement_that_lacks_an_event_is_noticed(
    drawn: tuple[list[JournalLine], int, int, int, int], data: st.DataObject
) -> None:
    lines, first, last, size, scale = drawn
    if first == last:
        return
    check = StatementCheck(*bounds_of(lines, first, last), scale=scale)
    lacking = data.draw(st.integers(first, last - 1))

    with pytest.raises(BrokenStatement):
        read_all(check, lines[first:lacking] + lines[lacking + 1 : last], size)


@given(statements())
def test_a_statement_of_another_history_is_noticed(
    drawn: tuple[list[JournalLine], int, int, int, int],
) -> None:
    lines, first, last, size, scale = drawn
    opening, closing = bounds_of(lines, first, last)
    other = msgspec.structs.replace(closing, balance=closing.balance + 1)
    check = StatementCheck(opening, other, scale=scale)
    entries_of(check, lines[first:last], size)

    with pytest.raises(BrokenStatement):
        check.end()
