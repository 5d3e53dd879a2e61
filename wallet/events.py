"""Events: immutable and complete. Reading one needs no other event."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from wallet.ids import WalletId
from wallet.state import Freeze, Refunded, Transfer, TransferStatus, Wallet, WalletStatus


class EventType(StrEnum):
    """Types of events on the stream."""

    WALLET_CREATED = "wallet.created"
    TRANSFER_PENDING = "transfer.pending"
    TRANSFER_COMPLETED = "transfer.completed"
    TRANSFER_FAILED = "transfer.failed"
    TRANSFER_PARTIALLY_COMPLETED = "transfer.partially_completed"
    WALLET_REWOUND = "wallet.rewound"
    WALLET_UPDATED = "wallet.updated"
    WALLET_FROZEN = "wallet.frozen"
    WALLET_UNFROZEN = "wallet.unfrozen"
    WALLET_CLOSED = "wallet.closed"


WALLET_CHANGES = frozenset(
    {
        EventType.WALLET_UPDATED,
        EventType.WALLET_FROZEN,
        EventType.WALLET_UNFROZEN,
        EventType.WALLET_CLOSED,
    }
)
"""Types of `WalletChanged`."""


class WalletCreated(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet was opened, with no money in it."""

    wallet_id: WalletId
    currency: str
    scale: int
    reference_id: str | None
    metadata: Mapping[str, str]
    overdraft_limit: int = 0
    occurred_at: datetime

    @property
    def type(self) -> EventType:
        return EventType.WALLET_CREATED


class WalletChanged(msgspec.Struct, frozen=True, kw_only=True):
    """What a wallet may do has changed, or what its owner notes about it. No money moves."""

    type: EventType
    """One of `WALLET_CHANGES`."""
    wallet_id: WalletId
    status: WalletStatus
    """After this event, as are the fields below."""
    freeze: Freeze | None
    overdraft_limit: int
    metadata: Mapping[str, str]
    reason: str | None = None
    """Why it was requested, as the client said."""
    occurred_at: datetime


_TYPE_BY_STATUS = {
    TransferStatus.PENDING: EventType.TRANSFER_PENDING,
    TransferStatus.COMPLETED: EventType.TRANSFER_COMPLETED,
    TransferStatus.FAILED: EventType.TRANSFER_FAILED,
}


class TransferChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer was created (``previous`` is None), or settled as a whole or in part (``previous``
    is pending)."""

    transfer: Transfer
    """The transfer after this event."""
    previous: TransferStatus | None
    occurred_at: datetime
    completed_before: int = 0
    """What had been completed of it before this event."""
    refunded: Refunded | None = None
    """Of a refund's event: what has been refunded, after it, of the transfer that it refunds."""

    @property
    def type(self) -> EventType:
        if self.previous is self.transfer.status:
            return EventType.TRANSFER_PARTIALLY_COMPLETED
        return _TYPE_BY_STATUS[self.transfer.status]

    @property
    def settled_now(self) -> int:
        """What this event completes."""
        return self.transfer.completed_amount - self.completed_before

    @property
    def released_now(self) -> int:
        """What this event releases of a hold."""
        if self.previous is None:
            return 0
        transfer = self.transfer
        return transfer.amount - transfer.completed_amount - transfer.pending_amount


class WalletRewound(msgspec.Struct, frozen=True, kw_only=True):
    """The journal had lost the wallet's latest events. It goes on after ``common_version``.

    Balances don't change: they are those of the events that the journal still has. What is applied
    again follows as new events.
    """

    wallet_id: WalletId
    common_version: int
    """The last version that the journal and the stream agree on; 0: not even the creation."""
    common_hash: bytes
    lost: tuple[str, ...]
    """Ids of the events that are gone."""
    occurred_at: datetime

    @property
    def type(self) -> EventType:
        return EventType.WALLET_REWOUND


Event = WalletCreated | TransferChanged | WalletRewound | WalletChanged


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event and the wallet after it, whose version is the event's.

    The unit of the journal, of the stream and of the response to the client.
    """

    event: Event
    wallet_after: Wallet
    body: bytes
    """JSON of its transfer, or of the wallet (`wallet.representation.encode_body`). The client's
    response, the answer stored under its key and the event on the stream have these bytes."""
    made_by: str | None = None
    previous_hash: bytes = b""
    """Of the wallet's event before this one; empty: recorded before there was a chain."""
    key_digest: bytes = b""
    """Of the idempotency key that it was requested with (`wallet.chain.request_digest`)."""
    traceparent: str | None = None
    """W3C ``traceparent`` of its request, if traced; not stored in the journal."""

    @property
    def id(self) -> str:
        """Unique and reproducible: the same event has the same id, whoever publishes it, and
        another event never has it, even if the journal lost this one."""
        wallet = self.wallet_after
        if not self.previous_hash:
            return f"{wallet.id}:{wallet.version}"
        return f"{wallet.id}:{wallet.version}:{wallet.hash.hex()}"
