"""The pending transfers that expire, in Postgres."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

from actors.journal.expiry_ports import ExpiringTransfer
from actors.journal.ports import JournalConflict, JournalUnavailable
from actors.journal.postgres_connection import Connection, ReconnectingConnection
from wallet.ids import TransferId, WalletId
from wallet.slots import ALL_SLOTS, SLOTS, SlotRange

# Walks the index by time. Other shards' rows are passed over: looking up each slot would cost this
# shard thousands of look-ups for each page, and the others' rows are due as well, so soon gone.
# (Decision 0077)
_OWNED: Final = f"$1::int8multirange @> (crc32(wallet_id::text::bytea) & {SLOTS - 1})"

_DUE: Final = f"""
SELECT expires_at, wallet_id::text, transfer_id::text FROM transfer_expiries
WHERE expires_at <= $2 AND (expires_at, wallet_id, transfer_id) > ($3, $4::uuid, $5::uuid)
    AND wallet_id <> ALL ($6::uuid[]) AND {_OWNED}
ORDER BY transfer_expiries.expires_at, transfer_expiries.wallet_id, transfer_expiries.transfer_id
LIMIT $7
"""

_NEXT: Final = f"""
SELECT expires_at FROM transfer_expiries WHERE {_OWNED} ORDER BY expires_at LIMIT 1
"""

_NIL: Final = "00000000-0000-0000-0000-000000000000"
_BEFORE_ALL: Final = ExpiringTransfer(
    datetime.fromisoformat("0001-01-01T00:00:00+00:00"), WalletId(_NIL), TransferId(_NIL)
)


class PostgresExpiries:
    """Implements `Expiries`."""

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    async def due(
        self,
        *,
        until: datetime,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: ExpiringTransfer | None = None,
        without: Collection[WalletId] = (),
    ) -> Sequence[ExpiringTransfer]:
        arguments = (_ranges(slots), until, *(after or _BEFORE_ALL), list(without), limit)
        rows = await self._read(lambda connection: connection.fetch(_DUE, *arguments))
        return [ExpiringTransfer(row[0], WalletId(row[1]), TransferId(row[2])) for row in rows]

    async def next_expiry(self, *, slots: Sequence[SlotRange] = ALL_SLOTS) -> datetime | None:
        found: datetime | None = await self._read(
            lambda connection: connection.fetchval(_NEXT, _ranges(slots))
        )
        return found

    async def _read(self, operation: Callable[[Connection], Awaitable[Any]]) -> Any:
        try:
            return await self._connection.read(operation)
        except JournalConflict as conflict:
            raise JournalUnavailable(str(conflict)) from conflict


def _ranges(slots: Sequence[SlotRange]) -> list["asyncpg.Range[int]"]:
    return [asyncpg.Range(one.first, one.last, upper_inc=True) for one in slots]
