"""A wallet's hash chain: each event is linked to the one before it.

A version is a number, and a database that lost commits gives the same number to another event. A
hash is an identity: it covers the event's content and the hash before it, so two histories that
differ anywhere have different hashes from there on. One chain per wallet: wallets never wait for
each other.

The content is the JSON of an event's facts in minor units, in a fixed order, without what is at its
default. A later release may add facts; the content of earlier events stays what it was.
Source of the hash: BLAKE2b, RFC 7693, with 128 bits.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from wallet.commands import Idempotency
from wallet.events import (
    Event,
    RecordedEvent,
    TransferChanged,
    WalletChanged,
    WalletRewound,
)
from wallet.fold import evolve
from wallet.ids import IdempotencyKey, WalletId
from wallet.representation import encode_body
from wallet.state import Transfer, Wallet

HASH_BYTES: Final = 16

GENESIS: Final = bytes(HASH_BYTES)
"""The hash before a wallet's first event."""

_PERSON: Final = b"wallet event"


class EventContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of an event. Amounts are minor units, as text."""

    wallet: WalletId
    version: int
    type: str
    time: datetime
    balance: str
    pending_debit: str
    pending_credit: str
    currency: str | None = None
    """Of a new wallet, as is ``scale``."""
    scale: int | None = None
    transfer: str | None = None
    transfer_type: str | None = None
    previous_status: str | None = None
    amount: str | None = None
    created_at: datetime | None = None
    """Of a settled transfer. A new one was created at ``time``."""
    failure_reason: str | None = None
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    key_digest: str | None = None
    common_version: int | None = None
    """Of a rewound wallet, as are ``common_hash`` and ``lost``."""
    common_hash: str | None = None
    lost: Sequence[str] = ()
    status: str | None = None
    """Of a wallet whose control changed, as are ``frozen``, ``frozen_reason`` and ``reason``."""
    frozen: str | None = None
    frozen_reason: str | None = None
    overdraft_limit: str | None = None
    """Also of a new wallet; None: zero."""
    reason: str | None = None
    expires_at: datetime | None = None
    """Of a transfer that expires, as is ``on_expiry``."""
    on_expiry: str | None = None
    completed_amount: str | None = None
    """Of a transfer of which a part was completed."""
    refunds: str | None = None
    """Of a refund."""
    refunded_amount: str | None = None
    """Of a refund, as is ``refund_pending_amount``: what is refunded of the transfer that it
    refunds. Of another transfer with refunds: of itself."""
    refund_pending_amount: str | None = None


_encoder: Final = msgspec.json.Encoder()


def record(
    wallet: Wallet | None,
    event: Event,
    *,
    made_by: str | None = None,
    key_digest: bytes = b"",
) -> RecordedEvent:
    """``event`` with the wallet after it, linked to the wallet's chain.

    ``wallet`` is None only before its creation.
    """
    after = evolve(wallet, event)
    previous = wallet.hash if wallet is not None else GENESIS
    assert len(previous) == HASH_BYTES, "INV-13 an event follows a known hash"
    content = _content(event, after, key_digest)
    return RecordedEvent(
        event=event,
        body=encode_body(event, after),
        wallet_after=msgspec.structs.replace(after, hash=link(previous, content)),
        made_by=made_by,
        previous_hash=previous,
        key_digest=key_digest,
    )


def link(previous: bytes, content: bytes) -> bytes:
    """The hash of an event: of its ``content``, after the event with the hash ``previous``."""
    return blake2b(previous + content, digest_size=HASH_BYTES, person=_PERSON).digest()


def content_of(recorded: RecordedEvent) -> bytes:
    """The content of an event, also of one that was recorded before there was a chain."""
    return _content(recorded.event, recorded.wallet_after, recorded.key_digest)


def encode_content(content: EventContent) -> bytes:
    return _encoder.encode(content)


def _content(event: Event, after: Wallet, key_digest: bytes) -> bytes:
    digest = key_digest.hex() if key_digest else None
    if isinstance(event, WalletRewound):
        return _encoder.encode(
            EventContent(
                wallet=after.id,
                version=after.version,
                type=event.type,
                time=event.occurred_at,
                balance=str(after.balance),
                pending_debit=str(after.pending_debit),
                pending_credit=str(after.pending_credit),
                common_version=event.common_version,
                common_hash=event.common_hash.hex(),
                lost=event.lost,
            )
        )
    if isinstance(event, WalletChanged):
        return _encoder.encode(
            EventContent(
                wallet=after.id,
                version=after.version,
                type=event.type,
                time=event.occurred_at,
                balance=str(after.balance),
                pending_debit=str(after.pending_debit),
                pending_credit=str(after.pending_credit),
                metadata=event.metadata,
                key_digest=digest,
                status=event.status,
                frozen=after.frozen,
                frozen_reason=after.frozen_reason,
                overdraft_limit=str(event.overdraft_limit) if event.overdraft_limit else None,
                reason=event.reason,
            )
        )
    if not isinstance(event, TransferChanged):
        return _encoder.encode(
            EventContent(
                wallet=after.id,
                version=after.version,
                type=event.type,
                time=event.occurred_at,
                balance=str(after.balance),
                pending_debit=str(after.pending_debit),
                pending_credit=str(after.pending_credit),
                currency=event.currency,
                scale=event.scale,
                reference_id=event.reference_id,
                metadata=event.metadata,
                key_digest=digest,
                overdraft_limit=str(event.overdraft_limit) if event.overdraft_limit else None,
            )
        )
    transfer = event.transfer
    facts = EventContent(
        wallet=after.id,
        version=after.version,
        type=event.type,
        time=event.occurred_at,
        balance=str(after.balance),
        pending_debit=str(after.pending_debit),
        pending_credit=str(after.pending_credit),
        transfer=transfer.id,
        transfer_type=transfer.type,
        previous_status=event.previous,
        amount=str(transfer.amount),
        created_at=transfer.created_at if event.previous is not None else None,
        failure_reason=transfer.failure_reason,
        reference_id=transfer.reference_id,
        metadata=transfer.metadata,
        key_digest=digest,
    )
    if transfer.expiry is not None or transfer.part is not None:
        facts = _with_hold(facts, transfer)
    if transfer.refunds is not None or transfer.refunded is not None:
        facts = _with_refunds(facts, event)
    return _encoder.encode(facts)


def _with_hold(facts: EventContent, transfer: Transfer) -> EventContent:
    expiry, part = transfer.expiry, transfer.part
    return msgspec.structs.replace(
        facts,
        expires_at=None if expiry is None else expiry.at,
        on_expiry=None if expiry is None else expiry.action,
        completed_amount=None if part is None else str(part),
    )


def _with_refunds(facts: EventContent, event: TransferChanged) -> EventContent:
    refunds = event.transfer.refunds
    refunded = event.transfer.refunded if refunds is None else event.refunded
    return msgspec.structs.replace(
        facts,
        refunds=refunds,
        refunded_amount=None if refunded is None else str(refunded.completed),
        refund_pending_amount=None if refunded is None else str(refunded.pending),
    )


KEY_DIGEST_BYTES: Final = 16


def key_digest(scope: WalletId, key: IdempotencyKey) -> bytes:
    """Identifies an idempotency key without containing it: BLAKE2b over its scope and itself."""
    return blake2b(
        f"{scope}\0{key}".encode(), digest_size=KEY_DIGEST_BYTES, person=b"wallet key"
    ).digest()


def request_digest(scope: WalletId, idempotency: Idempotency) -> bytes:
    """The digest of a key, then as many bytes of the fingerprint of the request that it came with.

    An event contains it: a repeated request is recognised even if the journal lost the key.
    """
    return key_digest(scope, idempotency.key) + idempotency.fingerprint[:KEY_DIGEST_BYTES]
