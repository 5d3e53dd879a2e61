"""Stream messages as the checker reads them: CloudEvents, decoded without the service's code."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from verification.chain import ContentFacts, EventChain, Rewound, content_of
from verification.facts import Balances, Control, JournalEvent, Refunded, StreamMessage
from verification.reference_model import minor_units
from verification.rows import CHANGES


class _Balances(msgspec.Struct):
    balance: str = "0"
    pending_debit: str = "0"
    pending_credit: str = "0"


class _Refunded(msgspec.Struct):
    """Of the transfer that a refund refunds, or of a transfer that has refunds."""

    refunded_amount: str | None = None
    refund_pending_amount: str = "0"


class _Data(_Balances):
    """A wallet, or a transfer with its wallet's balances."""

    id: str = ""
    type: str = ""
    amount: str = "0"
    reference_id: str | None = None
    failure_reason: str | None = None
    metadata: Mapping[str, str] = {}
    created_at: datetime | None = None
    currency: str | None = None
    scale: int | None = None
    wallet: _Balances | None = None
    common_version: int = 0
    """Of a rewound wallet, as are ``common_hash`` and ``lost``."""
    common_hash: str = ""
    lost: tuple[str, ...] = ()
    status: str = ""
    frozen: str | None = None
    frozen_reason: str | None = None
    overdraft_limit: str = "0"
    reason: str | None = None
    expires_at: datetime | None = None
    on_expiry: str = ""
    completed_amount: str = "0"
    refunds: str = ""
    refunded_transfer: _Refunded | None = None
    refunded_amount: str | None = None
    refund_pending_amount: str = "0"


class _Envelope(msgspec.Struct):
    id: str
    type: str
    subject: str
    walletversion: int
    data: _Data
    time: datetime | None = None
    previousstatus: str = ""
    hash: str = ""
    previoushash: str = ""
    keydigest: str = ""


_decoder = msgspec.json.Decoder(_Envelope)


def decode_message(sequence: int, message_id: str, subject: str, payload: bytes) -> StreamMessage:
    """Decode a stream message.

    Raises:
        msgspec.MsgspecError: the payload is not an event of the service.
    """
    envelope = _decoder.decode(payload)
    data = envelope.data
    balances = data.wallet or data
    moves = data.wallet is not None
    event = JournalEvent(
        wallet_id=envelope.subject,
        version=envelope.walletversion,
        type=envelope.type,
        after=Balances(
            balance=minor_units(balances.balance),
            pending_debit=minor_units(balances.pending_debit),
            pending_credit=minor_units(balances.pending_credit),
        ),
        transfer_id=data.id if moves else "",
        transfer_type=data.type if moves else "",
        previous_status=envelope.previousstatus,
        amount=minor_units(data.amount) if moves else 0,
        # A rewound wallet has one, its event does not.
        reference_id=(envelope.type != "wallet.rewound" and data.reference_id) or "",
        failure_reason=data.failure_reason or "",
        expires_at=data.expires_at,
        on_expiry=data.on_expiry,
        part=minor_units(data.completed_amount),
        refunds=data.refunds,
        refunded=_refunded(data.refunded_transfer or data),
        occurred_at=envelope.time,
    )
    if event.type in CHANGES or event.type == "wallet.created":
        event = _with_control(event, data)
    return StreamMessage(
        sequence=sequence,
        message_id=message_id,
        subject=subject,
        event=event,
        hash=envelope.hash,
        previous_hash=envelope.previoushash,
        key_digest=envelope.keydigest,
        content=_content(envelope, event),
    )


def _refunded(shown: _Refunded | _Data) -> Refunded | None:
    if shown.refunded_amount is None:
        return None
    return Refunded(minor_units(shown.refunded_amount), minor_units(shown.refund_pending_amount))


def _with_control(event: JournalEvent, data: _Data) -> JournalEvent:
    control = Control(
        status=data.status or "active",
        frozen=data.frozen or "",
        frozen_reason=data.frozen_reason or "",
        overdraft_limit=minor_units(data.overdraft_limit),
    )
    if event.type == "wallet.created":
        return msgspec.structs.replace(event, control=control)
    reason = data.reason or ""
    if event.type == "wallet.updated":
        reason = data.metadata.get("operation_id", "")
    return msgspec.structs.replace(event, control=control, reason=reason, reference_id="")


def _rewound(data: _Data) -> Rewound:
    return Rewound(data.common_version, data.common_hash, data.lost)


def _content(envelope: _Envelope, event: JournalEvent) -> bytes:
    """Empty for an event without a hash."""
    if not envelope.hash or envelope.time is None:
        return b""
    data = envelope.data
    facts = ContentFacts(
        occurred_at=envelope.time,
        created_at=data.created_at,
        reference_id=None if event.type in CHANGES else data.reference_id,
        metadata=data.metadata,
        reason=data.reason,
        currency=data.currency,
        scale=data.scale,
        rewound=_rewound(data) if event.type == "wallet.rewound" else None,
    )
    return content_of(event, facts, EventChain(key_digest=bytes.fromhex(envelope.keydigest)))
