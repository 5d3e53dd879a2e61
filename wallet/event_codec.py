"""Events on the stream: CloudEvents 1.0 in JSON, and their subjects.

``data`` is exactly the body of the client's response: a ``WalletView`` for ``wallet.created``, a
``WalletChangedView`` for changes of a wallet's control, a ``TransferResultView`` for ``transfer.*``
(`wallet.representation`). ``wallet.rewound`` answers no client: its ``data`` is a
``WalletRewoundView``.
Source of the format: CloudEvents 1.0, JSON event format.
"""

from binascii import crc32
from datetime import datetime
from typing import Final

import msgspec

from wallet.chain import EventContent, encode_content
from wallet.events import WALLET_CHANGES, EventType, RecordedEvent, TransferChanged
from wallet.ids import WalletId
from wallet.representation import (
    ENCODER,
    TransferResultView,
    WalletChangedView,
    WalletRewoundView,
    WalletView,
)
from wallet.state import TransferStatus

SOURCE: Final = "/wallet-service"
SUBJECT_ROOT: Final = "wallet.events"


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope. ``id`` is also the ``Nats-Msg-Id``; ``subject`` is the wallet."""

    specversion: str = "1.0"
    id: str
    source: str = SOURCE
    type: str
    subject: WalletId
    time: datetime
    datacontenttype: str = "application/json"
    walletversion: int
    """Extension attribute: the wallet's version after the event. Contiguous per wallet."""
    previousstatus: str | msgspec.UnsetType = msgspec.UNSET
    """Extension attribute: the transfer's previous status, if it existed before."""
    hash: str | msgspec.UnsetType = msgspec.UNSET
    """Extension attribute: hash of this event, in hexadecimal. Absent from events that were
    recorded before there was a chain; so is `previoushash`."""
    previoushash: str | msgspec.UnsetType = msgspec.UNSET
    """Extension attribute: hash of the wallet's event before this one; zeros before the first."""
    keydigest: str | msgspec.UnsetType = msgspec.UNSET
    """Extension attribute: digest of the idempotency key of its request, if there was one."""
    data: msgspec.Raw


_envelope_decoder: Final = msgspec.json.Decoder(CloudEvent)
_wallet_decoder: Final = msgspec.json.Decoder(WalletView)
_changed_decoder: Final = msgspec.json.Decoder(WalletChangedView)
_rewound_decoder: Final = msgspec.json.Decoder(WalletRewoundView)
_transfer_decoder: Final = msgspec.json.Decoder(TransferResultView)


def partition_of(wallet_id: WalletId, partitions: int) -> int:
    """The stream partition of a wallet: stable across processes, versions and platforms."""
    return crc32(wallet_id.encode()) % partitions


def subject_of(wallet_id: WalletId, event_type: EventType, partitions: int) -> str:
    """``wallet.events.<partition>.<wallet_id>.<type>``."""
    return f"{subject_of_wallet(wallet_id, partitions)}.{event_type}"


def subject_of_wallet(wallet_id: WalletId, partitions: int) -> str:
    """What the subjects of a wallet's events have in common."""
    return f"{SUBJECT_ROOT}.{partition_of(wallet_id, partitions)}.{wallet_id}"


def encode_event(recorded: RecordedEvent, event_id: str = "") -> bytes:
    """The CloudEvent of ``recorded``. ``event_id``: its id, if the caller has it already."""
    return ENCODER.encode(cloud_event(recorded, event_id))


def cloud_event(recorded: RecordedEvent, event_id: str = "") -> CloudEvent:
    """As `encode_event`, not encoded yet."""
    event = recorded.event
    settles = isinstance(event, TransferChanged) and event.previous is not None
    return CloudEvent(
        id=event_id or recorded.id,
        type=event.type,
        subject=recorded.wallet_after.id,
        time=event.occurred_at,
        walletversion=recorded.wallet_after.version,
        previousstatus=TransferStatus.PENDING if settles else msgspec.UNSET,
        hash=recorded.wallet_after.hash.hex() if recorded.previous_hash else msgspec.UNSET,
        previoushash=recorded.previous_hash.hex() or msgspec.UNSET,
        keydigest=recorded.key_digest.hex() or msgspec.UNSET,
        data=msgspec.Raw(recorded.body),
    )


def event_id(event: CloudEvent) -> str:
    """The id that ``event`` must have: wallet, version, and the hash if it has one."""
    wallet_version = f"{event.subject}:{event.walletversion}"
    return f"{wallet_version}:{event.hash}" if event.hash else wallet_version


def content_of_event(event: CloudEvent) -> bytes:
    """The content of ``event`` that its hash covers; equal to `content_of` its journal row.

    Raises:
        msgspec.MsgspecError: the data doesn't match the event's type.
    """
    digest = event.keydigest or None
    if event.type == EventType.WALLET_REWOUND:
        return encode_content(_rewound_content(event, _rewound_decoder.decode(event.data)))
    if event.type == EventType.WALLET_CREATED:
        return encode_content(_wallet_content(event, _wallet_decoder.decode(event.data), digest))
    if event.type in WALLET_CHANGES:
        return encode_content(_changed_content(event, _changed_decoder.decode(event.data), digest))
    return encode_content(_transfer_content(event, _transfer_decoder.decode(event.data), digest))


def _wallet_content(event: CloudEvent, wallet: WalletView, digest: str | None) -> EventContent:
    return EventContent(
        wallet=event.subject,
        version=event.walletversion,
        type=event.type,
        time=event.time,
        balance=_minor(wallet.balance),
        pending_debit=_minor(wallet.pending_debit),
        pending_credit=_minor(wallet.pending_credit),
        currency=wallet.currency,
        scale=wallet.scale,
        reference_id=wallet.reference_id,
        metadata=wallet.metadata,
        key_digest=digest,
        overdraft_limit=_limit(wallet),
    )


def _changed_content(
    event: CloudEvent, wallet: WalletChangedView, digest: str | None
) -> EventContent:
    return EventContent(
        wallet=event.subject,
        version=event.walletversion,
        type=event.type,
        time=event.time,
        balance=_minor(wallet.balance),
        pending_debit=_minor(wallet.pending_debit),
        pending_credit=_minor(wallet.pending_credit),
        metadata=wallet.metadata,
        key_digest=digest,
        status=wallet.status,
        frozen=wallet.frozen or None,
        frozen_reason=wallet.frozen_reason or None,
        overdraft_limit=_limit(wallet),
        reason=wallet.reason,
    )


def _limit(wallet: WalletView) -> str | None:
    minor = _minor(wallet.overdraft_limit) if wallet.overdraft_limit else "0"
    return minor if minor != "0" else None


def _rewound_content(event: CloudEvent, wallet: WalletRewoundView) -> EventContent:
    return EventContent(
        wallet=event.subject,
        version=event.walletversion,
        type=event.type,
        time=event.time,
        balance=_minor(wallet.balance),
        pending_debit=_minor(wallet.pending_debit),
        pending_credit=_minor(wallet.pending_credit),
        common_version=wallet.common_version,
        common_hash=wallet.common_hash,
        lost=wallet.lost,
    )


def _transfer_content(
    event: CloudEvent, transfer: TransferResultView, digest: str | None
) -> EventContent:
    after = transfer.wallet
    previous = event.previousstatus or None
    shown = transfer.refunded_transfer or transfer
    refunded = shown.refunded_amount
    return EventContent(
        wallet=event.subject,
        version=event.walletversion,
        type=event.type,
        time=event.time,
        balance=_minor(after.balance),
        pending_debit=_minor(after.pending_debit),
        pending_credit=_minor(after.pending_credit),
        transfer=transfer.id,
        transfer_type=transfer.type,
        previous_status=previous,
        amount=_minor(transfer.amount),
        created_at=transfer.created_at if previous is not None else None,
        failure_reason=transfer.failure_reason,
        reference_id=transfer.reference_id,
        metadata=transfer.metadata,
        key_digest=digest,
        expires_at=transfer.expires_at or None,
        on_expiry=transfer.on_expiry or None,
        completed_amount=_minor(transfer.completed_amount) if transfer.completed_amount else None,
        refunds=transfer.refunds or None,
        refunded_amount=_minor(refunded) if refunded else None,
        refund_pending_amount=_minor(shown.refund_pending_amount or "0") if refunded else None,
    )


def _minor(amount: str) -> str:
    """Minor units, as text, of a decimal string that has all of its decimals."""
    return str(int(amount.replace(".", "")))


def decode_envelope(payload: bytes) -> CloudEvent:
    """The envelope of a stream message; ``data`` stays raw.

    Raises:
        msgspec.MsgspecError: the payload is no CloudEvent of this service.
    """
    return _envelope_decoder.decode(payload)
