"""Events on the stream: CloudEvents 1.0 in JSON, and their subjects.

``data`` is exactly the body of the client's response: a ``WalletView`` for ``wallet.created``, a
``TransferResultView`` for ``transfer.*`` (`wallet.representation`).
Source of the format: CloudEvents 1.0, JSON event format.
"""

from binascii import crc32
from datetime import datetime
from typing import Final

import msgspec

from wallet.events import EventType, RecordedEvent, TransferChanged
from wallet.ids import WalletId
from wallet.representation import ENCODER, encode_recorded
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
    data: msgspec.Raw


_envelope_decoder = msgspec.json.Decoder(CloudEvent)


def partition_of(wallet_id: WalletId, partitions: int) -> int:
    """The stream partition of a wallet: stable across processes, versions and platforms."""
    return crc32(wallet_id.encode()) % partitions


def subject_of(wallet_id: WalletId, event_type: EventType, partitions: int) -> str:
    """``wallet.events.<partition>.<wallet_id>.<type>``."""
    return f"{SUBJECT_ROOT}.{partition_of(wallet_id, partitions)}.{wallet_id}.{event_type}"


def encode_event(recorded: RecordedEvent, body: bytes | None = None) -> bytes:
    """The CloudEvent of ``recorded``; ``body`` is its representation if already encoded."""
    event = recorded.event
    settles = isinstance(event, TransferChanged) and event.previous is not None
    return ENCODER.encode(
        CloudEvent(
            id=recorded.id,
            type=event.type,
            subject=recorded.wallet_after.id,
            time=event.occurred_at,
            walletversion=recorded.wallet_after.version,
            previousstatus=TransferStatus.PENDING if settles else msgspec.UNSET,
            data=msgspec.Raw(body if body is not None else encode_recorded(recorded)),
        )
    )


def decode_envelope(payload: bytes) -> CloudEvent:
    """The envelope of a stream message; ``data`` stays raw.

    Raises:
        msgspec.MsgspecError: the payload is no CloudEvent of this service.
    """
    return _envelope_decoder.decode(payload)
