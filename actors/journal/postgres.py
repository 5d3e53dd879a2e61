"""The journal in Postgres: what a batch reads, and the one statement that writes it."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from actors.journal.ports import (
    CommitRequest,
    EventRange,
    LoadedState,
    ReadSet,
    TransferKey,
    refunded_by,
)
from actors.journal.postgres_chain import linked_hash
from actors.journal.postgres_columns import commit_arguments
from actors.journal.postgres_connection import Connection, ReconnectingConnection
from actors.journal.postgres_rows import (
    EVENT_COLUMNS,
    recorded_event_from_row,
    stored_answer_from_row,
    transfer_from_row,
    wallet_from_row,
)
from wallet.chain import key_digest
from wallet.ids import IdempotencyKey, TransferId, WalletId

CONNECTION_SETTINGS: Final = {
    "application_name": "wallet-shard",
    "timezone": "UTC",
    # Batches are index look-ups by key, whatever the statistics of a new table say.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_memoize": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

_WALLETS: Final = """
SELECT w.id::text, w.currency, w.scale, w.status, w.balance::text, w.pending_debit::text,
    w.pending_credit::text, w.overdraft_limit::text, w.version, w.reference_id, w.metadata,
    w.created_at, w.updated_at, w.hash, w.hash_version, w.frozen, w.frozen_reason, o.firsts,
    o.lasts, i.id::text AS requested,
    EXISTS (SELECT FROM forked_wallets WHERE wallet_id = i.id) AS forked
FROM unnest($1::uuid[]) AS i(id)
LEFT JOIN LATERAL (SELECT * FROM wallets WHERE id = i.id OFFSET 0) w ON true
LEFT JOIN LATERAL (
    SELECT array_agg(first_version ORDER BY first_version) AS firsts,
        array_agg(last_version ORDER BY first_version) AS lasts
    FROM outbox WHERE wallet_id = w.id
) o ON true
"""

# Subqueries with OFFSET 0 run once per list element, by key. Without it the planner reverses the
# join if its statistics say that a table is empty, and scans the list once per row.
_TRANSFERS: Final = """
SELECT t.wallet_id::text, t.id::text, t.type, t.status, t.amount::text, t.created_version,
    t.created_at, t.reference_id, t.metadata, t.failure_reason, t.settled_at,
    t.expires_at, t.on_expiry, t.settled_amount::text AS completed_amount, t.refunds::text,
    t.refunded_amount::text, t.refund_pending_amount::text
FROM unnest($1::uuid[], $2::uuid[]) AS i(wallet_id, id)
CROSS JOIN LATERAL (
    SELECT * FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
) t
"""

# A recovered key is found by its digest. No key has two rows, unless a shard of an earlier release
# wrote the second.
_KEYS: Final = """
SELECT i.wallet_id::text, i.key, k.fingerprint, k.request_id, k.refused, k.answer, k.version,
    k.recovered
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS i(wallet_id, key, digest)
CROSS JOIN LATERAL (
    SELECT fingerprint, request_id, refused, answer, version, false AS recovered
    FROM idempotency_keys WHERE wallet_id = i.wallet_id AND key = i.key
    UNION ALL
    SELECT request, '', false, answer, version, true
    FROM recovered_keys WHERE key_digest = i.digest
    LIMIT 1 OFFSET 0
) k
"""


_REFERENCES: Final = """
SELECT reference_id, wallet_id::text FROM wallet_references WHERE reference_id = ANY ($1::text[])
"""

_CREATED_TRANSFERS: Final = f"""{EVENT_COLUMNS}
FROM unnest($1::uuid[], $2::uuid[]) AS i(wallet_id, id)
CROSS JOIN LATERAL (
    SELECT created_version FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
) t
CROSS JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = i.wallet_id AND version = t.created_version OFFSET 0
) e
CROSS JOIN LATERAL (SELECT * FROM wallets WHERE id = i.wallet_id OFFSET 0) w
"""

_REFUSED: Final = """
SELECT i.wallet_id::text, i.id::text AS transfer_id, r.answer
FROM unnest($1::uuid[], $2::uuid[]) AS i(wallet_id, id)
CROSS JOIN LATERAL (
    SELECT answer FROM refused_deliveries
    WHERE wallet_id = i.wallet_id AND transfer_id = i.id OFFSET 0
) r
"""

_LOCKED: Final = """
WITH free AS MATERIALIZED (
    SELECT id FROM wallets WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)
SELECT id::text FROM wallets WHERE id = ANY ($1::uuid[]) AND id NOT IN (SELECT id FROM free)
"""

_NIL: Final = UUID(int=0)
_ONE_OF_EACH: Final = ReadSet(
    wallets={WalletId(str(_NIL))},
    transfers={(WalletId(str(_NIL)), TransferId(str(_NIL)))},
    keys={(WalletId(str(_NIL)), IdempotencyKey(""))},
    created_transfers={(WalletId(str(_NIL)), TransferId(str(_NIL)))},
    references={""},
)
"""Reads that find nothing."""
_NOTHING: Final = CommitRequest(
    now=datetime.fromtimestamp(0, UTC),
    expected_versions={},
    expected_hashes={},
    wallets={},
    created_wallets=[],
    events=[],
)

COMMIT_BATCH: Final = f"SELECT commit_batch({', '.join(f'${n}' for n in range(1, 56))})"


class PostgresJournal:
    """Implements `Journal`."""

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    async def connect(self) -> int:
        return self._connection.session or await self._connection.connect()

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        return await self._connection.read(
            lambda connection: load_state(connection, missing), session=session
        )

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        arguments = commit_arguments(batch)
        await self._connection.write(
            lambda connection: connection.execute(COMMIT_BATCH, *arguments), session=session
        )

    async def warm_up(self) -> None:
        """Have the session's server process parse and plan what batches run.

        Otherwise the first batch of a shard does: it takes 40 ms instead of 3.

        Raises:
            JournalUnavailable, OutcomeUnknown: no answer in time. Nothing was to be written.
        """
        await self._connection.read(lambda connection: load_state(connection, _ONE_OF_EACH))
        await self.commit(_NOTHING)

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        rows = await self._connection.read(
            lambda connection: connection.fetch(_LOCKED, list(wallet_ids))
        )
        return frozenset(WalletId(row[0]) for row in rows)


async def load_state(connection: Connection, missing: ReadSet) -> LoadedState:
    # An earlier delivery may commit between two of these queries. References come first: if its
    # reference were seen without its wallet, its second delivery would be refused. Wallets come
    # before their transfers and keys: then the version check notices what was missed.
    loaded = LoadedState()
    if missing.references:
        rows = await connection.fetch(_REFERENCES, list(missing.references))
        loaded.references = {row["reference_id"]: row["wallet_id"] for row in rows}
    if missing.wallets:
        await _add_wallets(loaded, connection, list(missing.wallets))
    if missing.transfers:
        await _add_transfers(loaded, connection, missing.transfers)
        refunded = refunded_by(loaded.transfers)
        if refunded:
            await _add_transfers(loaded, connection, refunded)
    if missing.keys:
        digests = [key_digest(scope, key) for scope, key in missing.keys]
        rows = await connection.fetch(_KEYS, *_columns(missing.keys), digests)
        loaded.keys = {(row["wallet_id"], row["key"]): stored_answer_from_row(row) for row in rows}
    if missing.created_transfers:
        rows = await connection.fetch(_CREATED_TRANSFERS, *_columns(missing.created_transfers))
        loaded.created_transfers = {
            (row["wallet_id"], row["transfer_id"]): recorded_event_from_row(row) for row in rows
        }
        rows = await connection.fetch(_REFUSED, *_columns(missing.created_transfers))
        loaded.refused = {
            (row["wallet_id"], row["transfer_id"]): row["answer"].encode() for row in rows
        }
    return loaded


async def _add_transfers(
    loaded: LoadedState, connection: Connection, keys: Collection[TransferKey]
) -> None:
    rows = await connection.fetch(_TRANSFERS, *_columns(keys))
    loaded.transfers |= {(row["wallet_id"], row["id"]): transfer_from_row(row) for row in rows}


async def _add_wallets(
    loaded: LoadedState, connection: Connection, wallet_ids: list[WalletId]
) -> None:
    for row in await connection.fetch(_WALLETS, wallet_ids):
        if row["forked"]:
            loaded.forked.add(WalletId(row["requested"]))
        if row["id"] is None:
            continue
        wallet = wallet_from_row(row)
        if row["hash_version"] < wallet.version:
            wallet = msgspec.structs.replace(wallet, hash=await linked_hash(connection, wallet))
        loaded.wallets[wallet.id] = wallet
        event_ranges = zip(row["firsts"] or (), row["lasts"] or (), strict=True)
        loaded.unpublished.extend(
            EventRange(wallet.id, first, last) for first, last in event_ranges
        )


def _columns(pairs: Iterable[TransferKey] | Iterable[tuple[str, str]]) -> tuple[list[str], ...]:
    first, second = zip(*pairs, strict=True)
    return list(first), list(second)
