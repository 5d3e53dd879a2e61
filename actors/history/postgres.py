"""The history check's side of Postgres: the server's identity, lost events, quarantine.

It uses the journal's connection: what is checked is the server that the shard writes to.
"""

from collections.abc import Sequence
from typing import Final

from actors.history.ports import DatabaseIdentity, StreamEvent
from actors.journal.postgres_connection import ReconnectingConnection
from wallet.chain import GENESIS

_LOCK: Final = 8_089_003

# The timeline is in the name of the WAL file that is being written. The control file has it, too,
# but after a promotion only once the first checkpoint is done.
_IDENTITY: Final = """
SELECT (SELECT system_identifier::text FROM pg_control_system()),
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database())
"""

# The first database is known: there is nothing to compare it with. So it is on the first start of a
# release that knows databases.
_IS_KNOWN: Final = """
WITH first AS (
    INSERT INTO database_identities (system_identifier, timeline, database_oid)
    SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM database_identities)
    ON CONFLICT DO NOTHING RETURNING true
)
SELECT EXISTS (SELECT FROM first) OR EXISTS (SELECT FROM database_identities
    WHERE (system_identifier, timeline, database_oid) = ($1, $2, $3))
"""

_LOST: Final = """
SELECT i.number
FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) WITH ORDINALITY
    AS i(wallet_id, version, hash, number)
LEFT JOIN LATERAL (
    SELECT version, coalesce(hash, '') AS hash FROM wallet_events
    WHERE wallet_id = i.wallet_id AND version = i.version OFFSET 0
) e ON true
WHERE e.version IS NULL OR e.hash <> i.hash
ORDER BY i.number
"""

# One statement, so that it commits by itself. What was found before is found again.
_ADOPT: Final = """
WITH lost AS (
    INSERT INTO lost_events (wallet_id, version, hash, stream_sequence, payload)
    SELECT * FROM unnest($4::uuid[], $5::bigint[], $6::bytea[], $7::bigint[], $8::bytea[])
    ON CONFLICT DO NOTHING RETURNING wallet_id
), forked AS (
    INSERT INTO forked_wallets (wallet_id, common_version, common_hash)
    SELECT wallet_id, common_version, common_hash
    FROM unnest($9::uuid[], $10::bigint[], $11::bytea[])
        AS f(wallet_id, common_version, common_hash)
    WHERE wallet_id IN (SELECT wallet_id FROM lost)
    ON CONFLICT (wallet_id) DO UPDATE SET
        common_version = excluded.common_version, common_hash = excluded.common_hash
    WHERE excluded.common_version < forked_wallets.common_version
), known AS (
    INSERT INTO database_identities (system_identifier, timeline, database_oid)
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
)
SELECT (SELECT count(*) FROM lost), pg_advisory_unlock($12)
"""

_FORKED: Final = "SELECT count(*) FROM forked_wallets"


class PostgresHistory:
    """Implements `HistoryStore`. Its lock is an advisory lock of the database session."""

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    async def identity(self, session: int) -> DatabaseIdentity:
        row = await self._connection.read(
            lambda connection: connection.fetchrow(_IDENTITY), session=session
        )
        assert row is not None, "a server has an identity"
        return DatabaseIdentity(*row)

    async def is_known(self, identity: DatabaseIdentity, session: int) -> bool:
        return bool(
            await self._connection.read(
                lambda connection: connection.fetchval(_IS_KNOWN, *identity), session=session
            )
        )

    async def try_begin(self, session: int) -> bool:
        return bool(
            await self._connection.read(
                lambda connection: connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK),
                session=session,
            )
        )

    async def give_up(self, session: int) -> None:
        await self._connection.read(
            lambda connection: connection.fetchval("SELECT pg_advisory_unlock($1)", _LOCK),
            session=session,
        )

    async def lost(self, events: Sequence[StreamEvent], session: int) -> Sequence[StreamEvent]:
        columns = (
            [event.wallet_id for event in events],
            [event.version for event in events],
            [event.hash for event in events],
        )
        rows = await self._connection.read(
            lambda connection: connection.fetch(_LOST, *columns), session=session
        )
        return [events[row[0] - 1] for row in rows]

    async def adopt(
        self, identity: DatabaseIdentity, lost: Sequence[StreamEvent], session: int
    ) -> int:
        firsts: dict[str, StreamEvent] = {}
        for event in lost:
            known = firsts.get(event.wallet_id)
            if known is None or event.version < known.version:
                firsts[event.wallet_id] = event
        arguments = (
            *identity,
            [event.wallet_id for event in lost],
            [event.version for event in lost],
            [event.hash for event in lost],
            [event.sequence for event in lost],
            [event.payload for event in lost],
            list(firsts),
            [first.version - 1 for first in firsts.values()],
            [first.previous_hash or GENESIS for first in firsts.values()],
            _LOCK,
        )

        found: int = await self._connection.read(
            lambda connection: connection.fetchval(_ADOPT, *arguments), session=session
        )
        return found

    async def forked_wallets(self, session: int) -> int:
        forked: int = await self._connection.read(
            lambda connection: connection.fetchval(_FORKED), session=session
        )
        return forked
