"""Recovery in Postgres: reads wallets in quarantine, and resolves them one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from actors.history.ports import LostEvent
from actors.history.recovery import ForkedWallet, Recovery, recover_wallet
from actors.journal.assertions import assert_writable
from actors.journal.ports import ReadSet
from actors.journal.postgres import COMMIT_BATCH, load_state
from actors.journal.postgres_columns import commit_arguments
from actors.journal.postgres_connection import Connection
from actors.journal.postgres_rows import Row
from wallet.event_codec import decode_envelope
from wallet.events import EventType
from wallet.ids import TransferId, WalletId

_FORKED: Final = """
SELECT wallet_id::text FROM forked_wallets WHERE $1::uuid IS NULL OR wallet_id = $1::uuid
ORDER BY wallet_id
"""

_LOST: Final = """
SELECT wallet_id::text, version, hash, payload, found_at, outcome FROM lost_events
WHERE $1::uuid IS NULL OR wallet_id = $1::uuid
ORDER BY wallet_id, version, hash
"""

# A second recovery finds no row, and does nothing.
_RESOLVE: Final = """
DELETE FROM forked_wallets WHERE wallet_id = $1::uuid RETURNING common_version, common_hash
"""

# No shard writes it while it is in quarantine, except one of an earlier release.
_LOCK_WALLET: Final = "SELECT FROM wallets WHERE id = $1::uuid FOR NO KEY UPDATE"

_OPEN_LOST: Final = """
SELECT wallet_id::text, version, hash, payload, found_at, outcome FROM lost_events
WHERE wallet_id = $1::uuid AND outcome IS NULL ORDER BY version
"""

_ADD_KEYS: Final = """
INSERT INTO recovered_keys (key_digest, request, answer, version)
SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::bigint[]) ON CONFLICT DO NOTHING
"""

_SET_OUTCOMES: Final = """
UPDATE lost_events l SET outcome = i.outcome
FROM unnest($2::bigint[], $3::bytea[], $4::text[]) AS i(version, hash, outcome)
WHERE l.wallet_id = $1::uuid AND l.version = i.version AND l.hash = i.hash
"""


class _Data(msgspec.Struct):
    id: str
    refunds: str | None = None
    reference_id: str | None = None


_data_decoder: Final = msgspec.json.Decoder(_Data)


def _lost_event(row: Row) -> LostEvent:
    return LostEvent(
        wallet_id=WalletId(row[0]),
        version=row[1],
        hash=row[2],
        payload=row[3],
        found_at=row[4],
        outcome=row[5],
    )


async def forked_wallets(
    connection: Connection, wallet_id: WalletId | None = None
) -> Sequence[WalletId]:
    """The wallets in quarantine, by id."""
    rows = await connection.fetch(_FORKED, wallet_id)
    return [WalletId(row[0]) for row in rows]


async def lost_events(
    connection: Connection, wallet_id: WalletId | None = None
) -> Sequence[LostEvent]:
    """All lost events, resolved ones included, by wallet and version."""
    return [_lost_event(row) for row in await connection.fetch(_LOST, wallet_id)]


async def resolve(
    connection: Connection, wallet_id: WalletId, *, apply_again: bool
) -> Sequence[str]:
    """Recover one wallet and end its quarantine, in one transaction.

    Returns the outcomes of its lost events, in version order; none if it is not in quarantine.

    Raises:
        asyncpg.PostgresError: nothing was written.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_RESOLVE, wallet_id)
        if row is None:
            return []
        await connection.execute(_LOCK_WALLET, wallet_id)
        lost = [_lost_event(one) for one in await connection.fetch(_OPEN_LOST, wallet_id)]
        forked = await _read(connection, wallet_id, row[0], row[1], lost)
        recovery = recover_wallet(forked, apply_again=apply_again, now=lambda: datetime.now(UTC))
        await _write(connection, forked, recovery)
        return recovery.outcomes


async def _read(
    connection: Connection,
    wallet_id: WalletId,
    common_version: int,
    common_hash: bytes,
    lost: Sequence[LostEvent],
) -> ForkedWallet:
    transfers, references = _named_by(lost)
    found = await load_state(
        connection,
        ReadSet(
            wallets={wallet_id},
            transfers={(wallet_id, transfer_id) for transfer_id in transfers},
            references=references,
        ),
    )
    return ForkedWallet(
        wallet_id=wallet_id,
        common_version=common_version,
        common_hash=common_hash,
        lost=lost,
        wallet=found.wallets.get(wallet_id),
        transfers={transfer_id: one for (_, transfer_id), one in found.transfers.items()},
        reference_taken=bool(found.references),
    )


def _named_by(lost: Sequence[LostEvent]) -> tuple[set[TransferId], set[str]]:
    """The transfers of ``lost``, and the reference of a wallet that was created by one."""
    transfers: set[TransferId] = set()
    references: set[str] = set()
    for one in lost:
        event = decode_envelope(one.payload)
        data = _data_decoder.decode(event.data)
        if event.type == EventType.WALLET_CREATED:
            references |= {data.reference_id} if data.reference_id else set()
        elif event.type.startswith("transfer."):
            transfers |= {TransferId(one) for one in (data.id, data.refunds) if one is not None}
    return transfers, references


async def _write(connection: Connection, forked: ForkedWallet, recovery: Recovery) -> None:
    if recovery.write.events:
        assert_writable(recovery.write)
        await connection.execute(COMMIT_BATCH, *commit_arguments(recovery.write))
    keys = recovery.keys
    await connection.execute(
        _ADD_KEYS,
        [key.key_digest for key in keys],
        [key.request for key in keys],
        [key.answer for key in keys],
        [key.version for key in keys],
    )
    await connection.execute(
        _SET_OUTCOMES,
        forked.wallet_id,
        [one.version for one in forked.lost],
        [one.hash for one in forked.lost],
        recovery.outcomes,
    )
