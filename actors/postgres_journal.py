"""The journal in Postgres: what a batch reads, and the one statement that writes it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from actors.connection import Connection, HealingConnection
from actors.ports import (
    BatchWrite,
    KeyRecord,
    Loaded,
    Missing,
    RefusedDelivery,
    Span,
    StoredAnswer,
    TransferKey,
)
from wallet.events import Event, Recorded, TransferChanged, WalletCreated
from wallet.ids import TransferId, WalletId
from wallet.state import (
    FailureReason,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)

CONNECTION_SETTINGS: Final = {
    "application_name": "wallet-shard",
    "timezone": "UTC",
    # Batches are index look-ups by key, whatever the statistics of a young table say.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

_WALLETS: Final = """
SELECT w.id::text, w.currency, w.scale, w.status, w.balance::text, w.pending_debit::text,
    w.pending_credit::text, w.overdraft_limit::text, w.version, w.reference_id, w.metadata,
    w.created_at, w.updated_at, o.firsts, o.lasts
FROM wallets w
LEFT JOIN LATERAL (
    SELECT array_agg(first_version ORDER BY first_version) AS firsts,
        array_agg(last_version ORDER BY first_version) AS lasts
    FROM outbox WHERE wallet_id = w.id
) o ON true
WHERE w.id = ANY ($1::uuid[])
"""

# Subqueries with OFFSET 0 are asked once for each of the list, by key. Without it the planner turns
# the join round where it believes a table to be empty, and goes through the list once a row.
_TRANSFERS: Final = """
SELECT t.wallet_id::text, t.id::text, t.type, t.status, t.amount::text, t.created_version,
    t.created_at, t.reference_id, t.metadata, t.failure_reason, t.settled_at
FROM unnest($1::uuid[], $2::uuid[]) AS i(wallet_id, id)
CROSS JOIN LATERAL (
    SELECT * FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
) t
"""

_KEYS: Final = """
SELECT k.wallet_id::text, k.key, k.fingerprint, k.request_id, k.refused, k.answer, k.version
FROM unnest($1::uuid[], $2::text[]) AS i(wallet_id, key)
CROSS JOIN LATERAL (
    SELECT * FROM idempotency_keys WHERE wallet_id = i.wallet_id AND key = i.key OFFSET 0
) k
"""

_REFERENCES: Final = """
SELECT reference_id, wallet_id::text FROM wallet_references WHERE reference_id = ANY ($1::text[])
"""

EVENT_COLUMNS: Final = """
SELECT e.wallet_id::text, e.version, e.type, e.occurred_at, e.balance::text, e.pending_debit::text,
    e.pending_credit::text, e.transfer_id::text, e.transfer_type, e.previous_status,
    e.amount::text, e.transfer_created_at, e.created_version, e.failure_reason, e.reference_id,
    e.metadata, e.made_by, w.currency, w.scale, w.reference_id AS wallet_reference_id,
    w.metadata AS wallet_metadata, w.created_at AS wallet_created_at
"""

_RECORDED: Final = f"""{EVENT_COLUMNS}
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

COMMIT_BATCH: Final = f"SELECT commit_batch({', '.join(f'${n}' for n in range(1, 41))})"

Row = asyncpg.Record


class PostgresJournal:
    """Implements `Journal`."""

    def __init__(self, connection: HealingConnection) -> None:
        self._connection = connection

    async def connect(self) -> int:
        return self._connection.session or await self._connection.connect()

    async def load(self, missing: Missing, *, session: int | None = None) -> Loaded:
        return await self._connection.read(
            lambda connection: _load(connection, missing), session=session
        )

    async def commit(self, batch: BatchWrite, *, session: int | None = None) -> None:
        arguments = commit_arguments(batch)
        await self._connection.write(
            lambda connection: connection.execute(COMMIT_BATCH, *arguments), session=session
        )

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        rows = await self._connection.read(
            lambda connection: connection.fetch(_LOCKED, list(wallet_ids))
        )
        return frozenset(WalletId(row[0]) for row in rows)


# -- reading -------------------------------------------------------------------------------------


async def _load(connection: Connection, missing: Missing) -> Loaded:
    # An earlier delivery may commit between two of these. References come first: were its wallet
    # missed and its reference seen, its own second delivery would be refused. Wallets come before
    # what may have been done to them: then the version check notices what was missed.
    loaded = Loaded()
    if missing.references:
        rows = await connection.fetch(_REFERENCES, list(missing.references))
        loaded.references = {row["reference_id"]: row["wallet_id"] for row in rows}
    if missing.wallets:
        _add_wallets(loaded, await connection.fetch(_WALLETS, list(missing.wallets)))
    if missing.transfers:
        rows = await connection.fetch(_TRANSFERS, *_columns(missing.transfers))
        loaded.transfers = {(row["wallet_id"], row["id"]): _transfer(row) for row in rows}
    if missing.keys:
        rows = await connection.fetch(_KEYS, *_columns(missing.keys))
        loaded.keys = {(row["wallet_id"], row["key"]): _stored(row) for row in rows}
    if missing.recorded:
        rows = await connection.fetch(_RECORDED, *_columns(missing.recorded))
        loaded.recorded = {
            (row["wallet_id"], row["transfer_id"]): recorded_from(row) for row in rows
        }
        rows = await connection.fetch(_REFUSED, *_columns(missing.recorded))
        loaded.refused = {
            (row["wallet_id"], row["transfer_id"]): row["answer"].encode() for row in rows
        }
    return loaded


def _add_wallets(loaded: Loaded, rows: Iterable[Row]) -> None:
    for row in rows:
        wallet = _wallet(row)
        loaded.wallets[wallet.id] = wallet
        spans = zip(row["firsts"] or (), row["lasts"] or (), strict=True)
        loaded.unpublished.extend(Span(wallet.id, first, last) for first, last in spans)


def _columns(pairs: Iterable[TransferKey] | Iterable[tuple[str, str]]) -> tuple[list[str], ...]:
    first, second = zip(*pairs, strict=True)
    return list(first), list(second)


_metadata_decoder: Final = msgspec.json.Decoder(dict[str, str])


def _metadata(text: str | None) -> Mapping[str, str]:
    if text is None or text == "{}":
        return {}
    return _metadata_decoder.decode(text)


def _wallet(row: Row) -> Wallet:
    return Wallet(
        id=WalletId(row["id"]),
        currency=row["currency"],
        scale=row["scale"],
        status=WalletStatus(row["status"]),
        balance=int(row["balance"]),
        pending_debit=int(row["pending_debit"]),
        pending_credit=int(row["pending_credit"]),
        overdraft_limit=int(row["overdraft_limit"]),
        version=row["version"],
        reference_id=row["reference_id"],
        metadata=_metadata(row["metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _transfer(row: Row) -> Transfer:
    reason = row["failure_reason"]
    return Transfer(
        id=TransferId(row["id"]),
        type=TransferType(row["type"]),
        status=TransferStatus(row["status"]),
        amount=int(row["amount"]),
        created_version=row["created_version"],
        created_at=row["created_at"],
        reference_id=row["reference_id"],
        metadata=_metadata(row["metadata"]),
        failure_reason=FailureReason(reason) if reason else None,
        settled_at=row["settled_at"],
    )


def _stored(row: Row) -> StoredAnswer:
    return StoredAnswer(
        fingerprint=row["fingerprint"],
        request_id=row["request_id"],
        refused=row["refused"],
        answer=row["answer"].encode(),
        version=row["version"],
    )


def recorded_from(row: Row) -> Recorded:
    """A journal row as the event it is, with the wallet as it was after it.

    A backlog comes through here at tens of thousands of rows a second: columns by place.
    """
    wallet_id, version, _, occurred_at, balance, pending_debit, pending_credit = row[:7]
    made_by, currency, scale, reference_id, metadata, created_at = row[16:]
    wallet = Wallet(
        id=wallet_id,
        currency=currency,
        scale=scale,
        balance=int(balance),
        pending_debit=int(pending_debit),
        pending_credit=int(pending_credit),
        version=version,
        reference_id=reference_id,
        metadata=_metadata(metadata),
        created_at=created_at,
        updated_at=occurred_at,
    )
    event = _created(row) if row[7] is None else _changed(row)
    return Recorded(event=event, wallet=wallet, made_by=made_by)


def _created(row: Row) -> WalletCreated:
    return WalletCreated(
        wallet_id=WalletId(row["wallet_id"]),
        currency=row["currency"],
        scale=row["scale"],
        reference_id=row["reference_id"],
        metadata=_metadata(row["metadata"]),
        occurred_at=row["occurred_at"],
    )


_STATUS_OF: Final = {f"transfer.{status}": status for status in TransferStatus}
_STATUSES: Final[Mapping[str | None, TransferStatus | None]] = {
    None: None,
    **{str(status): status for status in TransferStatus},
}
_TYPES: Final = {str(type): type for type in TransferType}
_REASONS: Final[Mapping[str | None, FailureReason | None]] = {
    None: None,
    **{str(reason): reason for reason in FailureReason},
}


def _changed(row: Row) -> TransferChanged:
    _, version, event_type, occurred_at = row[:4]
    transfer_id, transfer_type, previous, amount, created_at, created_version = row[7:13]
    reason, reference_id, metadata = row[13:16]
    status = _STATUS_OF[event_type]
    transfer = Transfer(
        id=transfer_id,
        type=_TYPES[transfer_type],
        status=status,
        amount=int(amount),
        created_version=created_version or version,
        created_at=created_at or occurred_at,
        reference_id=reference_id,
        metadata=_metadata(metadata),
        failure_reason=_REASONS[reason],
        settled_at=None if status is TransferStatus.PENDING else occurred_at,
    )
    return TransferChanged(transfer=transfer, previous=_STATUSES[previous], occurred_at=occurred_at)


# -- writing -------------------------------------------------------------------------------------


def commit_arguments(batch: BatchWrite) -> tuple[object, ...]:
    """The columns of ``batch``, in the order of the parameters of ``commit_batch``.

    Whatever takes locks goes in the order of its keys, so that two writers that meet wait for
    each other and don't deadlock.

    Amounts go as text and are cast there: encoding a Python integer of 38 digits as binary
    NUMERIC costs many times more than printing it.
    """
    return (
        batch.now,
        *_wallet_columns(batch),
        *_new_wallet_columns(batch),
        *_event_columns(batch.recorded),
        *_key_columns(batch.keys),
        *_refused_columns(batch.refused),
        batch.confirm,
    )


def _wallet_columns(batch: BatchWrite) -> tuple[list[object], ...]:
    created = set(batch.created)
    wallets = [
        batch.after[wallet_id]
        for wallet_id in sorted(batch.after, key=lambda one: (one in created, one))
    ]
    return (
        [wallet.id for wallet in wallets],
        [batch.expected.get(wallet.id, 0) for wallet in wallets],
        [wallet.version for wallet in wallets],
        [str(wallet.balance) for wallet in wallets],
        [str(wallet.pending_debit) for wallet in wallets],
        [str(wallet.pending_credit) for wallet in wallets],
    )


def _new_wallet_columns(batch: BatchWrite) -> tuple[list[object], ...]:
    wallets = [batch.after[wallet_id] for wallet_id in sorted(batch.created)]
    return (
        [wallet.id for wallet in wallets],
        [wallet.currency for wallet in wallets],
        [wallet.scale for wallet in wallets],
        [wallet.reference_id for wallet in wallets],
        [_json(wallet.metadata) for wallet in wallets],
    )


_EVENT_FIELDS: Final = 16


def _event_columns(recorded: Sequence[Recorded]) -> tuple[object, ...]:
    if not recorded:
        return (*([] for _ in range(_EVENT_FIELDS)), 0)
    rows = [_event_row(one) for one in recorded]
    settlements = sum(row[8] is not None for row in rows)
    return (*zip(*rows, strict=True), settlements)


def _event_row(recorded: Recorded) -> tuple[object, ...]:
    wallet, event = recorded.wallet, recorded.event
    state = (
        wallet.id,
        wallet.version,
        event.type,
        str(wallet.balance),
        str(wallet.pending_debit),
        str(wallet.pending_credit),
    )
    return (*state, *_event_details(event), recorded.made_by)


def _event_details(event: Event) -> tuple[object, ...]:
    if isinstance(event, WalletCreated):
        nothing = (None,) * 7
        return (*nothing, event.reference_id, _json(event.metadata))
    transfer = event.transfer
    settles = event.previous is not None
    return (
        transfer.id,
        transfer.type,
        event.previous,
        str(transfer.amount),
        transfer.created_at if settles else None,
        transfer.created_version if settles else None,
        transfer.failure_reason,
        transfer.reference_id,
        _json(transfer.metadata),
    )


def _json(metadata: Mapping[str, str]) -> str | None:
    return msgspec.json.encode(metadata).decode() if metadata else None


def _key_columns(records: Iterable[KeyRecord]) -> tuple[list[object], ...]:
    keys = sorted(records, key=lambda one: (one.scope, one.keyed.key))
    return (
        [key.scope for key in keys],
        [key.keyed.key for key in keys],
        [key.keyed.fingerprint for key in keys],
        [key.stored.request_id for key in keys],
        [key.stored.refused for key in keys],
        [key.stored.answer.decode() for key in keys],
        [key.stored.version for key in keys],
    )


def _refused_columns(refused: Iterable[RefusedDelivery]) -> tuple[list[object], ...]:
    rows = list(refused)
    return (
        [one.wallet_id for one in rows],
        [one.transfer_id for one in rows],
        [one.answer.decode() for one in rows],
    )
