"""Statements as CSV: read back as they are, and harmless in a spreadsheet."""

import csv
import io
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.http.statement_csv import COLUMNS, closing_row, entry_rows, harmless, opening_rows
from tests.support.domain import TRANSFER_ID, transfer_id
from wallet.representation import BalancesView
from wallet.statement import StatementEntry

REFERENCE = COLUMNS.index("reference_id")
REFUNDED = transfer_id(7)
BALANCES = BalancesView(version=3, balance="-6.50", pending_credit="4.00", pending_debit="0.00")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_entry(reference_id: str | None) -> StatementEntry:
    return StatementEntry(
        version=4,
        time=NOW,
        event="transfer.completed",
        transfer_id=TRANSFER_ID,
        type="credit",
        effect="out",
        amount="4.00",
        balance_change="-4.00",
        balance="-10.50",
        pending_credit="0.00",
        pending_debit="0.00",
        reference_id=reference_id,
        refunds=REFUNDED,
    )


def read(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))


def test_a_file_has_a_header_the_opening_entries_and_the_closing() -> None:
    body = opening_rows(BALANCES, NOW, "USD")
    body += entry_rows([make_entry('say "hi", ü')], "USD") + closing_row(BALANCES, None, "USD")

    header, opening, entry, closing = read(body)

    assert header == list(COLUMNS)
    assert [row[0] for row in (opening, entry, closing)] == ["opening", "entry", "closing"]
    assert opening[1:3] == ["3", "2026-01-02T03:04:05Z"]
    assert dict(zip(header, entry, strict=True)) == {
        "row": "entry",
        "version": "4",
        "time": "2026-01-02T03:04:05Z",
        "event": "transfer.completed",
        "transfer_id": TRANSFER_ID,
        "type": "credit",
        "effect": "out",
        "amount": "4.00",
        "balance_change": "-4.00",
        "balance": "-10.50",
        "pending_credit": "0.00",
        "pending_debit": "0.00",
        "currency": "USD",
        "reference_id": 'say "hi", ü',
        "refunds": REFUNDED,
    }
    assert closing[2] == ""
    assert body.count(b"\r\n") == 4
    assert len({len(row) for row in read(body)}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("order-1042", "order-1042"),
        ("a=b+c-d@e", "a=b+c-d@e"),
        ("", ""),
        ("=1+1", "'=1+1"),
        ("+49 30", "'+49 30"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("\u00a0=1", "'\u00a0=1"),
        ("＝1", "'＝1"),
        ('"=1"', '\'"=1"'),
        ("a;=1", "a;'=1"),
        ("a; =1;x;@b", "a;' =1;x;'@b"),
        ("'=1", "''=1"),
    ],
)
def test_a_reference_that_would_be_executed_has_an_apostrophe(text: str, expected: str) -> None:
    assert harmless(text) == expected


_EXECUTED = re.compile(r"[\s\"]*[=+\-@＝＋－＠]")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_no_cell_of_a_reference_is_executed_whatever_separates_cells(reference: str) -> None:
    for cell in (
        read(entry_rows([make_entry(reference)], "USD"))[0][REFERENCE],
        *harmless(reference).split(";"),
    ):
        assert not _EXECUTED.match(cell)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_a_reference_is_read_back_but_for_apostrophes(reference: str) -> None:
    (row,) = read(entry_rows([make_entry(reference)], "USD"))

    assert row[REFERENCE].replace("'", "") == reference.replace("'", "")
