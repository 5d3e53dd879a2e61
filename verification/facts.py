"""The checker's input: plain rows, whatever their source.

Amounts are integers of minor units. Only names are shared with the code under test: a checker that
computes with the product's own functions proves little.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

Outcome = Literal["acknowledged", "refused", "not_applied", "unknown"]
"""What a client knows after a call: applied, refused, certainly not applied, or unknown."""

Operation = Literal[
    "create_wallet",
    "debit",
    "credit",
    "complete",
    "revert",
    "refund",
    "update",
    "freeze",
    "unfreeze",
    "close",
    "read",
]


class ClientCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a client, and its outcome.

    ``operation_id`` is the same in every retry of an operation. It is sent as ``reference_id``, as
    ``reason``, or in the metadata, so that the journal shows which event came from which operation.
    ``started`` and ``ended`` are readings of one monotonic clock: ``started`` before the request
    was sent, ``ended`` after the response was read, or after the client gave up.
    """

    operation_id: str
    operation: Operation
    started: int
    ended: int
    outcome: Outcome
    wallet_id: str = ""
    """Wallet in the path; empty for a wallet creation."""
    transfer_id: str = ""
    """Transfer in the path of a settlement, or of a refund."""
    amount: int = 0
    """Of an update: the overdraft limit. Of a completion: a part; 0: all. Of a refund, 0: all that
    could be refunded."""
    final: bool = True
    """Of a completion: whether the rest is released."""
    pending: bool = False
    direction: Literal["", "both", "debit", "credit"] = ""
    """Of a freeze."""
    key: str = ""
    status: int = 0
    code: str = ""
    body: str = ""
    replayed: bool = False
    version: int = 0
    """Wallet version in the response."""
    min_version: int = 0
    strong: bool = False


class Balances(msgspec.Struct, frozen=True, kw_only=True):
    """The three balances of a wallet."""

    balance: int = 0
    pending_debit: int = 0
    pending_credit: int = 0


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What a wallet may do."""

    status: str = "active"
    frozen: str = ""
    """Direction of the freeze."""
    frozen_reason: str = ""
    overdraft_limit: int = 0

    def stops(self, transfer_type: str) -> bool:
        """Whether such transfers are neither created nor completed."""
        return self.status == "closed" or self.frozen in ("both", transfer_type)


class Refunded(msgspec.Struct, frozen=True):
    """What a transfer's refunds have returned of it, and what pending ones hold."""

    completed: int
    pending: int


class JournalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the journal."""

    wallet_id: str
    version: int
    type: str
    after: Balances
    transfer_id: str = ""
    transfer_type: str = ""
    previous_status: str = ""
    amount: int = 0
    reference_id: str = ""
    failure_reason: str = ""
    expires_at: datetime | None = None
    """Of a transfer that expires."""
    on_expiry: str = ""
    part: int = 0
    """What was completed of a transfer, if a part; 0: all of a completed one, nothing of others."""
    completed_before: int = 0
    """What had been completed of it before this event. Only the journal says it."""
    refunds: str = ""
    """Of a refund: the transfer that it refunds."""
    refunded: Refunded | None = None
    """Of that transfer, after a refund's event. Of another transfer that has refunds: of itself."""
    occurred_at: datetime | None = None
    """None: not read."""
    control: Control | None = None
    """After an event of the wallet itself, unless it doesn't say."""
    reason: str = ""
    """Of a change of the control."""

    @property
    def status(self) -> str:
        """The transfer's status after the event; empty for a wallet creation."""
        if self.type == "transfer.partially_completed":
            return "pending"
        return self.type.removeprefix("transfer.") if self.transfer_id else ""

    @property
    def completed(self) -> int:
        """What has been completed of the transfer."""
        return self.part or (self.amount if self.status == "completed" else 0)

    @property
    def is_late(self) -> bool:
        """Whether it happened when its transfer had expired."""
        expires_at, occurred_at = self.expires_at, self.occurred_at
        return expires_at is not None and occurred_at is not None and occurred_at >= expires_at

    @property
    def is_expiry(self) -> bool:
        """Whether no client asked for it: a transfer settled itself."""
        if not self.previous_status or not self.is_late:
            return False
        completes = self.status == "completed" and self.on_expiry == "complete"
        return completes or self.failure_reason == "expired"


class WalletRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``wallets`` or of ``wallet_projections``."""

    wallet_id: str
    version: int
    balances: Balances
    currency: str = ""
    control: Control = Control()


class TransferRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``transfers`` or of ``transfer_projections``."""

    wallet_id: str
    transfer_id: str
    type: str
    status: str
    amount: int
    created_version: int
    reference_id: str = ""
    failure_reason: str = ""
    expires_at: datetime | None = None
    on_expiry: str = ""
    part: int = 0
    refunds: str = ""
    refunded: Refunded | None = None

    @property
    def completed(self) -> int:
        """What it has moved."""
        return self.part or (self.amount if self.status == "completed" else 0)


class ExpiryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``transfer_expiries``: a pending transfer that expires."""

    wallet_id: str
    transfer_id: str
    expires_at: datetime


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``idempotency_keys``. ``wallet_id`` is the scope."""

    wallet_id: str
    key: str
    refused: bool
    answer: str
    version: int


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message on the stream, in the order of its sequence."""

    sequence: int
    message_id: str
    subject: str
    event: JournalEvent
    hash: str = ""
    """In hexadecimal, as are the two below; empty: not in the message."""
    previous_hash: str = ""
    key_digest: str = ""
    content: bytes = b""
    """What the hash covers, computed from the message."""


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """Committed events that are not confirmed on the stream yet."""

    wallet_id: str
    first_version: int
    last_version: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about an idle service.

    A part that is None was not read; rules that need it are not checked.
    """

    journal: Sequence[JournalEvent]
    wallets: Sequence[WalletRow]
    transfers: Sequence[TransferRow]
    history: Sequence[ClientCall] | None = None
    keys: Sequence[KeyRow] | None = None
    stream: Sequence[StreamMessage] | None = None
    outbox: Sequence[OutboxRow] | None = None
    expiries: Sequence[ExpiryRow] | None = None
    recovered_keys: frozenset[bytes] = frozenset()
    """Digests of keys that the database lost and whose events were applied again."""
    wallet_projections: Sequence[WalletRow] | None = None
    transfer_projections: Sequence[TransferRow] | None = None
