"""Statements as CSV (RFC 4180), for spreadsheets: nothing in a cell is executed.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, also after
blanks, and also if the cell is quoted. References are the only text of clients; one that begins
with such a character gets an apostrophe before it, which spreadsheets don't show. Where a semicolon
separates cells, the part after one is a cell, so that is treated alike.

Source: OWASP, CSV injection.
"""

import csv
import io
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from wallet.representation import BalancesView
from wallet.statement import StatementEntry

COLUMNS: Final = (
    "row",
    "version",
    "time",
    "event",
    "transfer_id",
    "type",
    "effect",
    "amount",
    "balance_change",
    "balance",
    "pending_credit",
    "pending_debit",
    "currency",
    "reference_id",
    "refunds",
)

# Spreadsheets also take the full-width forms.
_FORMULA: Final = re.compile(r"(^|[;\t\r\n])([\s\"']*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def harmless(text: str) -> str:
    """``text`` as a cell that no spreadsheet executes."""
    return _FORMULA.sub(r"\1'\2", text)


def opening_rows(balances: BalancesView, time: datetime | None, currency: str) -> bytes:
    """The header, and the balances before the first entry."""
    return _encoded([COLUMNS, _balances_row("opening", balances, time, currency)])


def entry_rows(entries: Iterable[StatementEntry], currency: str) -> bytes:
    return _encoded(
        (
            "entry",
            entry.version,
            _time(entry.time),
            entry.event,
            entry.transfer_id,
            entry.type,
            entry.effect,
            entry.amount,
            entry.balance_change,
            entry.balance,
            entry.pending_credit,
            entry.pending_debit,
            currency,
            harmless(entry.reference_id or ""),
            entry.refunds or "",
        )
        for entry in entries
    )


def closing_row(balances: BalancesView, time: datetime | None, currency: str) -> bytes:
    """The balances after the last entry. Without this row a statement is not complete."""
    return _encoded([_balances_row("closing", balances, time, currency)])


def _balances_row(
    row: str, balances: BalancesView, time: datetime | None, currency: str
) -> tuple[object, ...]:
    amounts = (balances.balance, balances.pending_credit, balances.pending_debit)
    moment = _time(time) if time is not None else ""
    return (row, balances.version, moment, *("",) * 6, *amounts, currency, "", "")


def _time(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _encoded(rows: Iterable[Iterable[object]]) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue().encode()
