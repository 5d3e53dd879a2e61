"""A batch as the array parameters of `commit_batch`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from actors.journal.ports import CommitRequest, IdempotencyKeyRef, StoredAnswer, TransferKey
from actors.journal.wallet_events import WalletEvent, encode_changed, encode_rewound
from wallet.events import RecordedEvent, TransferChanged, WalletChanged, WalletCreated
from wallet.state import Expiry, Wallet


def commit_arguments(batch: CommitRequest) -> tuple[object, ...]:
    """The columns of ``batch``, in the order of the parameters of ``commit_batch``.

    Rows that take locks are sorted by key, so that two concurrent writers wait for each other
    and don't deadlock.

    Amounts are sent as text and cast by the function: encoding a Python integer of 38 digits as
    binary NUMERIC costs many times more than printing it.
    """
    return (
        batch.now,
        *_wallet_columns(batch),
        *_new_wallet_columns(batch),
        *_event_columns(batch.events),
        *_key_columns(batch.stored_answers),
        *_refused_columns(batch.refused),
        batch.confirm,
        *_delivery_columns(batch.deliveries),
        _has_changes(batch.events),
        *expiry_columns(batch.events),
        part_column(batch.events),
    )


def _wallet_columns(batch: CommitRequest) -> tuple[list[object], ...]:
    created = set(batch.created_wallets)
    wallets = [
        batch.wallets[wallet_id]
        for wallet_id in sorted(batch.wallets, key=lambda one: (one in created, one))
    ]
    return (
        [wallet.id for wallet in wallets],
        [batch.expected_versions.get(wallet.id, 0) for wallet in wallets],
        [wallet.version for wallet in wallets],
        [str(wallet.balance) for wallet in wallets],
        [str(wallet.pending_debit) for wallet in wallets],
        [str(wallet.pending_credit) for wallet in wallets],
        [batch.expected_hashes.get(wallet.id, b"") for wallet in wallets],
        [wallet.hash for wallet in wallets],
    )


def _new_wallet_columns(batch: CommitRequest) -> tuple[list[object], ...]:
    wallets = [batch.wallets[wallet_id] for wallet_id in sorted(batch.created_wallets)]
    return (
        [wallet.id for wallet in wallets],
        [wallet.currency for wallet in wallets],
        [wallet.scale for wallet in wallets],
        [wallet.reference_id for wallet in wallets],
        [_json(wallet.metadata) for wallet in wallets],
    )


_EVENT_FIELDS: Final = 19


def _event_columns(recorded: Sequence[RecordedEvent]) -> tuple[object, ...]:
    if not recorded:
        return (*([] for _ in range(_EVENT_FIELDS)), 0)
    rows = [event_row(one) for one in recorded]
    settlements = sum(row[8] is not None for row in rows)
    return (*zip(*rows, strict=True), settlements)


def event_row(recorded: RecordedEvent) -> tuple[object, ...]:
    """The columns of `wallet_events` except the time, which is the batch's."""
    wallet, event = recorded.wallet_after, recorded.event
    state = (
        wallet.id,
        wallet.version,
        event.type,
        str(wallet.balance),
        str(wallet.pending_debit),
        str(wallet.pending_credit),
    )
    chain = (wallet.hash, recorded.previous_hash, recorded.key_digest or None)
    return (*state, *_event_details(recorded), recorded.made_by, *chain)


def _event_details(recorded: RecordedEvent) -> tuple[object, ...]:
    event = recorded.event
    if not isinstance(event, TransferChanged):
        return _wallet_event_details(event, recorded.wallet_after)
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


def _wallet_event_details(event: WalletEvent, after: Wallet) -> tuple[object, ...]:
    if isinstance(event, WalletCreated):
        limit = str(event.overdraft_limit) if event.overdraft_limit else None
        details = (event.reference_id, _json(event.metadata))
        return (None, None, None, limit, None, None, None, *details)
    if isinstance(event, WalletChanged):
        return (*(None,) * 8, encode_changed(event, after))
    return (*(None,) * 8, encode_rewound(event, after))


def _has_changes(events: Sequence[RecordedEvent]) -> bool:
    """Whether columns of wallets change that transfers don't change."""
    for recorded in events:
        event = recorded.event
        if isinstance(event, WalletChanged):
            return True
        if isinstance(event, WalletCreated) and event.overdraft_limit:
            return True
    return False


def expiry_columns(
    events: Sequence[RecordedEvent],
) -> tuple[list[datetime | None], list[str | None]]:
    """When the transfer of each event expires, and how; empty if none of them does.

    Postgres fills up a shorter column with NULL.
    """
    expiries = [_expiry_of(recorded) for recorded in events]
    if not any(expiries):
        return [], []
    return (
        [None if one is None else one.at for one in expiries],
        [None if one is None else one.action for one in expiries],
    )


def part_column(events: Sequence[RecordedEvent]) -> list[str | None]:
    """What was completed of each event's transfer, if a part; empty if of none of them."""
    parts = [_part_of(recorded) for recorded in events]
    return parts if any(parts) else []


def _part_of(recorded: RecordedEvent) -> str | None:
    event = recorded.event
    if not isinstance(event, TransferChanged) or event.transfer.part is None:
        return None
    return str(event.transfer.part)


def _expiry_of(recorded: RecordedEvent) -> Expiry | None:
    event = recorded.event
    return event.transfer.expiry if isinstance(event, TransferChanged) else None


def _json(metadata: Mapping[str, str]) -> str | None:
    return msgspec.json.encode(metadata).decode() if metadata else None


def _key_columns(
    stored_answers: Mapping[IdempotencyKeyRef, StoredAnswer],
) -> tuple[list[object], ...]:
    keys = sorted(stored_answers)
    answers = [stored_answers[key] for key in keys]
    return (
        [scope for scope, _ in keys],
        [key for _, key in keys],
        [stored.fingerprint for stored in answers],
        [stored.request_id for stored in answers],
        [stored.refused for stored in answers],
        [stored.answer.decode() for stored in answers],
        [stored.version for stored in answers],
    )


def _refused_columns(refused: Mapping[TransferKey, bytes]) -> tuple[list[object], ...]:
    return (
        [wallet_id for wallet_id, _ in refused],
        [transfer_id for _, transfer_id in refused],
        [answer.decode() for answer in refused.values()],
    )


def _delivery_columns(deliveries: Collection[TransferKey]) -> tuple[list[str], list[str]]:
    if not deliveries:
        return [], []
    return [wallet_id for wallet_id, _ in deliveries], [one for _, one in deliveries]
