"""The projection tables: applies a batch in one transaction, repairs wallets from the journal.

A batch's events of a wallet are applied if the journal has the last of them, with its hash, and the
stored row is of the same history (INV-11). Otherwise nothing of that wallet is applied, and the
caller repairs it; the other wallets of the batch are not affected.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import asyncpg
import msgspec

from projections.wallet_rebuild import retake_wallet
from wallet.ids import WalletId

CATCH_UP_EVENTS_MAX: Final = 20_000
"""Journal events that one catch-up statement applies: bounds its locks and its memory."""

_PROJECT: Final = (
    "SELECT refused_id::text, reason FROM project_batch("
    + ", ".join(f"${n}" for n in range(1, 52))
    + ")"
)
_CATCH_UP: Final = "SELECT catch_up($1::uuid, $2)"


_ADD_DEAD_LETTER: Final = """
INSERT INTO projection_dead_letters (stream_sequence, event_id, subject, payload, reason, attempts)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (event_id, stream_sequence) DO UPDATE SET
    reason = excluded.reason, attempts = projection_dead_letters.attempts + excluded.attempts,
    failed_at = clock_timestamp()
"""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be applied, and why."""

    stream_sequence: int
    event_id: str
    subject: str
    payload: bytes
    reason: str
    attempts: int


class WalletRow(msgspec.Struct, frozen=True):
    """A created wallet. The fields are columns, in the order of `project_batch`."""

    id: WalletId
    reference_id: str | None
    currency: str
    scale: int
    status: str
    metadata: str | None
    created_at: datetime


class BalanceRow(msgspec.Struct):
    """Balances after a wallet's last event of the batch: minor units, as text."""

    id: WalletId
    first_version: int
    last_version: int
    balance: str
    pending_debit: str
    pending_credit: str
    updated_at: datetime
    previous_hash: bytes = b""
    """Hash before the first event; empty: recorded before the chain, only the version counts."""
    hash: bytes = b""
    """Hash of the last event; empty as above."""


class ControlRow(msgspec.Struct, frozen=True):
    """What a wallet may do, as the last of its own events says. The limit: minor units, as text."""

    id: WalletId
    status: str
    frozen: str | None
    frozen_reason: str | None
    overdraft_limit: str
    metadata: str | None


class Reason(StrEnum):
    """Why nothing of a wallet was applied."""

    GAP = "gap"
    """Events before the batch's first are missing: they are in the journal."""
    LOST_EVENTS = "lost_events"
    """The journal does not have the batch's last event. The projection has nothing of it."""
    LOST_HISTORY = "lost_history"
    """The journal does not have the event that the projection is at, or that is not known."""


class RefusedWallet(msgspec.Struct, frozen=True):
    """A wallet of which nothing was applied."""

    wallet_id: WalletId
    reason: Reason


class TransferRow(msgspec.Struct, frozen=True):
    """A transfer that the batch creates or settles, in its state after the batch."""

    wallet_id: WalletId
    id: str
    type: str
    status: str
    amount: str
    reference_id: str | None
    metadata: str | None
    failure_reason: str | None
    created_at: datetime
    settled_at: datetime | None
    created_version: int | None
    """None: it was created before the batch, which settles it."""
    version: int
    expires_at: datetime | None = None
    on_expiry: str | None = None
    completed_amount: str | None = None
    """If it is less than the amount."""
    refunds: str | None = None


class RefundedRow(msgspec.Struct, frozen=True):
    """What is refunded of a transfer after the batch: minor units, as text."""

    wallet_id: WalletId
    id: str
    refunded_amount: str
    refund_pending_amount: str


_FIXED_COLUMNS: Final = frozenset(
    {"type", "amount", "created_at", "created_version", "expires_at", "on_expiry", "refunds"}
)
"""Columns of a transfer that its settlement does not change."""


class ProjectionChanges(msgspec.Struct, kw_only=True):
    """The rows that a batch of events changes."""

    wallets: Sequence[WalletRow]
    balances: Sequence[BalanceRow]
    transfers: Sequence[TransferRow]
    controls: Sequence[ControlRow] = []
    refunded: Sequence[RefundedRow] = []


class ProjectionStore:
    """Writes the projection tables."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def project(self, batch: ProjectionChanges) -> list[RefusedWallet]:
        """Apply ``batch`` in one transaction; return the wallets that need `repair`.

        Events that a projection already has are dropped (INV-11).
        """
        _assert_applicable(batch)
        created = [row for row in batch.transfers if row.created_version is not None]
        settled = [row for row in batch.transfers if row.created_version is None]
        columns = (
            *_columns(WalletRow, batch.wallets).values(),
            *_columns(BalanceRow, batch.balances).values(),
            *_without_rare(_columns(TransferRow, created)).values(),
            *(
                column
                for name, column in _without_parts(_columns(TransferRow, settled)).items()
                if name not in _FIXED_COLUMNS
            ),
            *_columns(ControlRow, batch.controls).values(),
            *_columns(RefundedRow, batch.refunded).values(),
        )
        rows = await self._pool.fetch(_PROJECT, *columns)
        refused = [RefusedWallet(WalletId(row[0]), Reason(row[1])) for row in rows]
        changed = {row.id for row in batch.balances}
        assert changed.issuperset(one.wallet_id for one in refused), (
            "INV-11 a gap is before an event of the batch"
        )
        return refused

    async def repair(self, refused: RefusedWallet) -> None:
        """Bring a wallet to the journal's state."""
        if refused.reason is Reason.LOST_HISTORY:
            await self.retake(refused.wallet_id)
        else:
            await self.catch_up(refused.wallet_id)

    async def retake(self, wallet_id: WalletId) -> None:
        """Replace one wallet's rows by the journal's state; delete what the journal lacks."""
        async with self._pool.acquire() as connection:
            await retake_wallet(connection, wallet_id, events_max=CATCH_UP_EVENTS_MAX)

    async def catch_up(self, wallet_id: WalletId) -> None:
        """Apply one wallet's journal to its end."""
        while await self._pool.fetchval(_CATCH_UP, wallet_id, CATCH_UP_EVENTS_MAX):
            pass

    async def add_dead_letter(self, letter: DeadLetter) -> None:
        """Store a dead letter; one that is stored already gets the new reason."""
        await self._pool.execute(
            _ADD_DEAD_LETTER,
            letter.stream_sequence,
            letter.event_id,
            letter.subject,
            letter.payload,
            letter.reason,
            letter.attempts,
        )

    async def dead_letters(self, *, limit: int) -> list[DeadLetter]:
        """The oldest dead letters."""
        rows = await self._pool.fetch(
            "SELECT stream_sequence, event_id, subject, payload, reason, attempts "
            "FROM projection_dead_letters ORDER BY failed_at LIMIT $1",
            limit,
        )
        return [DeadLetter(**dict(row)) for row in rows]

    async def count_dead_letters(self) -> int:
        count: int = await self._pool.fetchval("SELECT count(*) FROM projection_dead_letters")
        return count

    async def remove_dead_letter(self, letter: DeadLetter) -> None:
        """Delete a dead letter whose event has been applied."""
        await self._pool.execute(
            "DELETE FROM projection_dead_letters WHERE event_id = $1 AND stream_sequence = $2",
            letter.event_id,
            letter.stream_sequence,
        )


def _assert_applicable(batch: ProjectionChanges) -> None:
    """Precondition of the write: versions increase, and no transfer is ahead of its wallet."""
    reached = {row.id: row.last_version for row in batch.balances}
    assert len(reached) == len(batch.balances), "INV-11 a wallet moves once a batch"
    for row in batch.balances:
        assert 1 <= row.first_version <= row.last_version, "INV-11 a projection moves forward"
    for transfer in batch.transfers:
        created_version = transfer.created_version or 1
        assert created_version <= transfer.version, "INV-11 a projection moves forward"
        assert transfer.version <= reached[transfer.wallet_id], (
            "INV-11 no transfer is ahead of its wallet"
        )


def _without_rare(columns: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """``columns`` of new transfers; those of expiries are empty if none of them expires, and so
    is that of refunds."""
    if not any(columns["expires_at"]):
        columns |= {"expires_at": [], "on_expiry": []}
    if not any(columns["refunds"]):
        columns |= {"refunds": []}
    return _without_parts(columns)


def _without_parts(columns: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """``columns`` with an empty one of parts, if there are none."""
    return columns if any(columns["completed_amount"]) else columns | {"completed_amount": []}


def _columns(
    kind: type[msgspec.Struct], rows: Sequence[msgspec.Struct]
) -> dict[str, Sequence[Any]]:
    """The columns of ``rows`` by name, in the order of the fields."""
    if not rows:
        return {name: [] for name in kind.__struct_fields__}
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    return dict(zip(kind.__struct_fields__, columns, strict=True))
