"""The projections' tables: a batch of events in one transaction, gaps filled from the journal."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from wallet.ids import WalletId

CATCH_UP_EVENTS_MAX: Final = 20_000
"""Journal events folded by one statement of a catch-up: bounds its locks and its memory."""

_PROJECT: Final = "SELECT project_batch(" + ", ".join(f"${n}" for n in range(1, 35)) + ")::text"
_CATCH_UP: Final = "SELECT catch_up($1::uuid, $2)"


_ADD_DEAD_LETTER: Final = """
INSERT INTO projection_dead_letters (stream_sequence, event_id, subject, payload, reason, attempts)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (event_id, stream_sequence) DO UPDATE SET
    reason = excluded.reason, attempts = projection_dead_letters.attempts + excluded.attempts,
    failed_at = clock_timestamp()
"""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be folded, and why."""

    stream_sequence: int
    event_id: str
    subject: str
    payload: bytes
    reason: str
    attempts: int


class WalletRow(msgspec.Struct, frozen=True):
    """A wallet that came to be. The fields are columns, in the order of `project_batch`."""

    id: WalletId
    reference_id: str | None
    currency: str
    scale: int
    status: str
    metadata: str | None
    created_at: datetime


class BalanceRow(msgspec.Struct):
    """What a batch's last event of a wallet left: minor units, as text."""

    id: WalletId
    first_version: int
    last_version: int
    balance: str
    pending_debit: str
    pending_credit: str
    updated_at: datetime


class TransferRow(msgspec.Struct):
    """A transfer that came to be, as the batch leaves it."""

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
    created_version: int
    version: int


class SettlementRow(msgspec.Struct):
    """A transfer from before the batch, settled by it."""

    wallet_id: WalletId
    id: str
    status: str
    reference_id: str | None
    metadata: str | None
    failure_reason: str | None
    settled_at: datetime | None
    version: int


class ProjectionChanges(msgspec.Struct, kw_only=True):
    """A batch of events, folded to the rows that it changes."""

    wallets: Sequence[WalletRow]
    balances: Sequence[BalanceRow]
    transfers: Sequence[TransferRow]
    settlements: Sequence[SettlementRow]


class ProjectionStore:
    """Writes projections over one connection of its own pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def project(self, batch: ProjectionChanges) -> list[WalletId]:
        """Apply ``batch`` in one transaction; return the wallets that have a gap before it.

        Events that a projection has already are dropped by their version (INV-11).
        """
        _assert_foldable(batch)
        columns = (
            *_columns(WalletRow, batch.wallets),
            *_columns(BalanceRow, batch.balances),
            *_columns(TransferRow, batch.transfers),
            *_columns(SettlementRow, batch.settlements),
        )
        rows = await self._pool.fetch(_PROJECT, *columns)
        gaps = [WalletId(row[0]) for row in rows]
        folded = {row.id for row in batch.balances}
        assert folded.issuperset(gaps), "INV-11 a gap is before an event of the batch"
        return gaps

    async def catch_up(self, wallet_id: WalletId) -> None:
        """Bring one wallet's projections to the end of its journal."""
        while await self._pool.fetchval(_CATCH_UP, wallet_id, CATCH_UP_EVENTS_MAX):
            pass

    async def add_dead_letter(self, letter: DeadLetter) -> None:
        """Put an event aside."""
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
        """The oldest events that were put aside."""
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
        """Forget an event that has been folded after all."""
        await self._pool.execute(
            "DELETE FROM projection_dead_letters WHERE event_id = $1 AND stream_sequence = $2",
            letter.event_id,
            letter.stream_sequence,
        )


def _assert_foldable(batch: ProjectionChanges) -> None:
    """Before the write: rows move forward, and no further than their wallets."""
    reached = {row.id: row.last_version for row in batch.balances}
    assert len(reached) == len(batch.balances), "INV-11 a wallet moves once a batch"
    for row in batch.balances:
        assert 1 <= row.first_version <= row.last_version, "INV-11 a projection moves forward"
    for made in batch.transfers:
        assert made.created_version <= made.version, "INV-11 a projection moves forward"
        assert made.version <= reached[made.wallet_id], "INV-11 no transfer is ahead of its wallet"
    for settled in batch.settlements:
        ahead = settled.version > reached[settled.wallet_id]
        assert not ahead, "INV-11 no transfer is ahead of its wallet"


def _columns(kind: type[msgspec.Struct], rows: Sequence[msgspec.Struct]) -> Sequence[Any]:
    if not rows:
        return [[] for _ in kind.__struct_fields__]
    return list(zip(*(msgspec.structs.astuple(row) for row in rows), strict=True))
