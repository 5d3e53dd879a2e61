"""A batch as the array parameters of `commit_batch`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from actors.journal.ports import CommitRequest, IdempotencyKeyRef, StoredAnswer, TransferKey
from actors.journal.wallet_events import WalletEvent, encode_changed, encode_rewound
from wallet.events import EventType, RecordedEvent, TransferChanged, WalletChanged, WalletCreated
from wallet.state import Wallet


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
        *hold_columns(batch.events),
        *refund_columns(batch.events),
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

_PARTIALLY: Final = EventType.TRANSFER_PARTIALLY_COMPLETED


def _event_columns(recorded: Sequence[RecordedEvent]) -> tuple[object, ...]:
    if not recorded:
        return (*([] for _ in range(_EVENT_FIELDS)), 0)
    rows = [event_row(one) for one in recorded]
    return (*zip(*rows, strict=True), _settlements(rows))


def _settlements(rows: Sequence[tuple[object, ...]]) -> int:
    """Transfers that are settled, in part or as a whole. A batch may complete several parts of one,
    but settles none as a whole twice."""
    settling = [(row[0], row[6], row[2]) for row in rows if row[8] is not None]
    whole = [key for *key, type in settling if type is not _PARTIALLY]
    parts = {(wallet, transfer) for wallet, transfer, type in settling if type is _PARTIALLY}
    return len(whole) + len(parts.difference((wallet, transfer) for wallet, transfer in whole))


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


_HoldColumns = tuple[list[datetime | None], list[str | None], list[str | None], list[str | None]]


def hold_columns(events: Sequence[RecordedEvent]) -> _HoldColumns:
    """When the transfer of each event expires, and how; what was completed of it after the event,
    if a part, and before. Empty if there is nothing of it in the batch, as nearly always.

    Postgres fills up a shorter column with NULL.
    """
    if not any(map(_has_hold, events)):
        return [], [], [], []
    changes = [one.event if isinstance(one.event, TransferChanged) else None for one in events]
    return (*_expiry_columns(changes), *_part_columns(changes))


def _has_hold(recorded: RecordedEvent) -> bool:
    event = recorded.event
    if not isinstance(event, TransferChanged):
        return False
    transfer = event.transfer
    has_one = transfer.expiry is not None or transfer.part is not None
    return has_one or event.completed_before > 0


def _expiry_columns(
    changes: Sequence[TransferChanged | None],
) -> tuple[list[datetime | None], list[str | None]]:
    expiries = [None if one is None else one.transfer.expiry for one in changes]
    if not any(expiries):
        return [], []
    return (
        [None if one is None else one.at for one in expiries],
        [None if one is None else one.action for one in expiries],
    )


def _part_columns(
    changes: Sequence[TransferChanged | None],
) -> tuple[list[str | None], list[str | None]]:
    parts = [
        (None, 0) if one is None else (one.transfer.part, one.completed_before) for one in changes
    ]
    if not any(after or before for after, before in parts):
        return [], []
    return (
        [None if after is None else str(after) for after, _ in parts],
        [str(before) if before else None for _, before in parts],
    )


_RefundColumns = tuple[list[str | None], list[str | None], list[str | None]]


def refund_columns(events: Sequence[RecordedEvent]) -> _RefundColumns:
    """The transfer that each event's transfer refunds, and what is refunded of that, and held by
    pending refunds; the latter two also of a transfer that has refunds itself. Empty if there is
    nothing of it in the batch, as nearly always."""
    if not any(map(_has_refunds, events)):
        return [], [], []
    changes = [one.event if isinstance(one.event, TransferChanged) else None for one in events]
    counts = [None if one is None else one.refunded or one.transfer.refunded for one in changes]
    return (
        [None if one is None else one.transfer.refunds for one in changes],
        [None if one is None else str(one.completed) for one in counts],
        [None if one is None else str(one.pending) for one in counts],
    )


def _has_refunds(recorded: RecordedEvent) -> bool:
    event = recorded.event
    if not isinstance(event, TransferChanged):
        return False
    return event.transfer.refunds is not None or event.transfer.refunded is not None


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
