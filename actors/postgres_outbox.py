"""The outbox in Postgres: which committed events the stream may lack, and what they are."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from actors.connection import Connection, HealingConnection
from actors.ports import Span
from actors.postgres_journal import CONNECTION_SETTINGS, EVENT_COLUMNS, recorded_from
from wallet.events import Recorded
from wallet.ids import WalletId

_SPAN: Final = f"""{EVENT_COLUMNS}
FROM wallet_events e JOIN wallets w ON w.id = e.wallet_id
WHERE e.wallet_id = $1::uuid AND e.version BETWEEN $2 AND $3
ORDER BY e.version
"""

_DELETE: Final = """
DELETE FROM outbox o USING unnest($1::uuid[], $2::bigint[]) AS i(wallet_id, first_version)
WHERE o.wallet_id = i.wallet_id AND o.first_version = i.first_version
"""

_UNPUBLISHED: Final = """
SELECT o.wallet_id::text, o.first_version, o.last_version
FROM (
    SELECT wallet_id, max(first_version) AS first_version FROM outbox
    WHERE created_at <= clock_timestamp() - make_interval(secs => $2) GROUP BY wallet_id
) last
JOIN outbox o ON o.wallet_id = last.wallet_id AND o.first_version <= last.first_version
ORDER BY o.wallet_id, o.first_version LIMIT $1
"""


class PostgresOutbox:
    """Implements `Outbox`. Its connection does not wait for the disk: a deletion that a crash
    undoes only makes the relay publish again what the stream then drops."""

    SETTINGS: Final = {
        **CONNECTION_SETTINGS,
        "application_name": "wallet-relay",
        "synchronous_commit": "off",
    }

    def __init__(self, connection: HealingConnection) -> None:
        self._connection = connection

    async def read(self, span: Span) -> Sequence[Recorded]:
        rows = await self._read(lambda connection: connection.fetch(_SPAN, *span))
        recorded = [recorded_from(row) for row in rows]
        assert len(recorded) == span.last - span.first + 1, "INV-10 the journal has no gaps"
        return recorded

    async def delete(self, spans: Iterable[Span]) -> None:
        wallet_ids, firsts, _ = zip(*spans, strict=True)
        await self._read(lambda connection: connection.execute(_DELETE, wallet_ids, firsts))

    async def unpublished(self, *, limit: int, older_than_s: float = 0.0) -> Sequence[Span]:
        rows = await self._read(
            lambda connection: connection.fetch(_UNPUBLISHED, limit, older_than_s)
        )
        return [Span(WalletId(row[0]), row[1], row[2]) for row in rows]

    async def _read(self, ask: Callable[[Connection], Awaitable[Any]]) -> Any:
        return await self._connection.read(ask)
