"""An account statement: the balances at its beginning, every movement, the balances at its end.

A statement is read in pieces. `StatementCheck` makes sure that the pieces are one history: no
version is missing, and what the last entry leaves is the closing balance that was announced at the
beginning.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wallet.ids import TransferId, WalletId
from wallet.money import from_minor
from wallet.representation import BalancesView, effect_of
from wallet.state import TransferType

_Amount = Annotated[str, Meta(description="Amount of the transfer.", examples=["4.00"])]


class Balances(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet's balances after ``version`` events, in minor units; at 0 it did not exist."""

    version: int
    balance: int = 0
    pending_credit: int = 0
    pending_debit: int = 0

    def view(self, scale: int) -> BalancesView:
        return BalancesView(
            version=self.version,
            balance=from_minor(self.balance, scale),
            pending_credit=from_minor(self.pending_credit, scale),
            pending_debit=from_minor(self.pending_debit, scale),
        )


class JournalLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement needs of an event. ``transfer_id`` None: it moves no money."""

    type: str
    time: datetime
    after: Balances
    transfer_id: TransferId | None = None
    transfer_type: str = ""
    amount: int = 0
    reference_id: str | None = None
    refunds: TransferId | None = None


class StatementEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event that changed the balance, or what is pending."""

    version: int
    time: datetime
    event: Annotated[str, Meta(description="Type of the event.", examples=["transfer.pending"])]
    transfer_id: TransferId
    type: Annotated[str, Meta(extra_json_schema={"enum": [str(choice) for choice in TransferType]})]
    effect: Annotated[str, Meta(extra_json_schema={"enum": ["in", "out"]})]
    amount: _Amount
    balance_change: Annotated[
        str,
        Meta(
            description="By how much the balance changed; zero if only what is pending did.",
            examples=["-4.00"],
        ),
    ]
    balance: Annotated[str, Meta(description="After the event, as what is pending.")]
    pending_credit: str
    pending_debit: str
    reference_id: str | None
    refunds: (
        Annotated[TransferId, Meta(description="Of a refund: id of the transfer that it refunds.")]
        | UnsetType
    ) = UNSET


class StatementView(msgspec.Struct, frozen=True, kw_only=True):
    """A statement. The opening balance and all changes add up to the closing balance."""

    wallet_id: WalletId
    currency: str
    from_: datetime | None = msgspec.field(name="from")
    to: datetime | None
    opening: Annotated[BalancesView, Meta(description="Balances before the first entry.")]
    entries: list[StatementEntry]
    entry_count: Annotated[int, Meta(description="Number of entries.")]
    closing: Annotated[BalancesView, Meta(description="Balances after the last entry.")]


class BrokenStatement(Exception):
    """The journal changed while the statement was read: the database was replaced."""


class StatementCheck:
    """The entries of a statement, piece by piece."""

    def __init__(self, opening: Balances, closing: Balances, *, scale: int) -> None:
        self._before = opening
        self._closing = closing
        self._scale = scale
        self.entry_count = 0

    def entries(self, lines: Iterable[JournalLine]) -> list[StatementEntry]:
        """The entries of the next events.

        Raises:
            BrokenStatement: they don't follow the ones before.
        """
        found: list[StatementEntry] = []
        for line in lines:
            if line.after.version != self._before.version + 1:
                raise BrokenStatement(f"no event after version {self._before.version}")
            if line.transfer_id is not None:
                found.append(self._entry(line, line.transfer_id))
            elif line.after.balance != self._before.balance:
                raise BrokenStatement(f"version {line.after.version} moves money by itself")
            self._before = line.after
        self.entry_count += len(found)
        return found

    def end(self) -> None:
        """There are no more events.

        Raises:
            BrokenStatement: these are not all of them.
        """
        if self._before != self._closing:
            raise BrokenStatement(f"the statement ends at version {self._before.version}")

    def _entry(self, line: JournalLine, transfer_id: TransferId) -> StatementEntry:
        scale, after = self._scale, line.after
        return StatementEntry(
            version=after.version,
            time=line.time,
            event=line.type,
            transfer_id=transfer_id,
            type=line.transfer_type,
            effect=effect_of(TransferType(line.transfer_type)),
            amount=from_minor(line.amount, scale),
            balance_change=from_minor(after.balance - self._before.balance, scale),
            balance=from_minor(after.balance, scale),
            pending_credit=from_minor(after.pending_credit, scale),
            pending_debit=from_minor(after.pending_debit, scale),
            reference_id=line.reference_id,
            refunds=UNSET if line.refunds is None else line.refunds,
        )
