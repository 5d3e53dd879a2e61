"""State of a wallet and a transfer at one version. Immutable: a change creates a new value.

Debit puts money INTO the wallet, credit takes money OUT of it (accounting terms).
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from wallet.ids import TransferId, WalletId


class TransferType(StrEnum):
    """Direction of the money."""

    DEBIT = "debit"
    """Into the wallet."""
    CREDIT = "credit"
    """Out of the wallet."""


class TransferStatus(StrEnum):
    """Status of a transfer. Only ``PENDING`` can change."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why a transfer failed."""

    REVERTED = "reverted"
    EXPIRED = "expired"


class WalletStatus(StrEnum):
    """Whether a wallet accepts transfers."""

    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class FreezeDirection(StrEnum):
    """Which transfers a frozen wallet refuses."""

    BOTH = "both"
    DEBIT = "debit"
    CREDIT = "credit"


class Freeze(msgspec.Struct, frozen=True):
    """Why a wallet is frozen, and in which direction."""

    direction: FreezeDirection
    reason: str | None = None

    def stops(self, type: TransferType) -> bool:
        """Whether transfers of this type are neither created nor completed."""
        return self.direction is FreezeDirection.BOTH or self.direction.value == type.value


class OnExpiry(StrEnum):
    """What becomes of a transfer that is still pending when it expires."""

    FAIL = "fail"
    COMPLETE = "complete"


class Expiry(msgspec.Struct, frozen=True):
    """When a pending transfer settles itself, and how. ``at`` is in UTC."""

    at: datetime
    action: OnExpiry = OnExpiry.FAIL


class Refunded(msgspec.Struct, frozen=True):
    """What refunds have returned of a transfer, and what pending ones hold of it: minor units."""

    completed: int = 0
    pending: int = 0

    @property
    def total(self) -> int:
        """What no other refund can return. A refund that fails gives its part back."""
        return self.completed + self.pending


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of money. ``amount`` is in minor units, 1 to ``MINOR_MAX``."""

    id: TransferId
    type: TransferType
    status: TransferStatus
    amount: int
    created_version: int
    """The wallet's version that recorded this transfer: its position in the wallet's order."""
    created_at: datetime
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    failure_reason: FailureReason | None = None
    settled_at: datetime | None = None
    expiry: Expiry | None = None
    """Of a transfer that was created pending, and keeps it; None: it never expires."""
    part: int | None = None
    """What was completed of it, if a part: 1 to ``amount`` - 1. None: all of a completed transfer,
    nothing of another one."""
    refunds: TransferId | None = None
    """Of a refund: the transfer that it returns, of the same wallet and the other direction."""
    refunded: Refunded | None = None
    """Of a transfer that has, or had, refunds."""

    @property
    def refundable_amount(self) -> int:
        """What another refund may return."""
        refunded = 0 if self.refunded is None else self.refunded.total
        return self.completed_amount - refunded

    @property
    def completed_amount(self) -> int:
        """What the transfer has moved."""
        if self.part is not None:
            return self.part
        return self.amount if self.status is TransferStatus.COMPLETED else 0

    @property
    def pending_amount(self) -> int:
        """What it still holds."""
        is_pending = self.status is TransferStatus.PENDING
        return self.amount - self.completed_amount if is_pending else 0

    def is_due(self, now: datetime) -> bool:
        """Whether it is pending and has expired: from then on nothing but its expiry settles it."""
        expiry = self.expiry
        return expiry is not None and self.status is TransferStatus.PENDING and expiry.at <= now


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet after ``version`` events. Amounts are minor units of ``currency``.

    ``balance`` is what may be spent: pending debits are not in it yet, pending credits are
    already out of it.
    """

    id: WalletId
    currency: str
    scale: int
    status: WalletStatus = WalletStatus.ACTIVE
    freeze: Freeze | None = None
    """Set if, and only if, ``status`` is ``FROZEN``."""
    balance: int = 0
    pending_debit: int = 0
    pending_credit: int = 0
    overdraft_limit: int = 0
    version: int = 0
    hash: bytes = b""
    """Of the last event (`wallet.chain`)."""
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    created_at: datetime
    updated_at: datetime

    @property
    def frozen(self) -> FreezeDirection | None:
        return None if self.freeze is None else self.freeze.direction

    @property
    def frozen_reason(self) -> str | None:
        return None if self.freeze is None else self.freeze.reason
