"""Commands: client requests as the ingress passes them to the write side, validated.

Amounts are canonical decimal strings: only the wallet knows its scale, so only the wallet's
shard can turn them into minor units.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from wallet.ids import IdempotencyKey, TransferId, WalletId


class CreateWallet(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="create_wallet",
):
    """Open a wallet with no money in it."""

    wallet_id: WalletId
    currency: str
    scale: int
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    overdraft_limit: str = "0"


class UpdateWallet(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="update_wallet",
):
    """Change a wallet's metadata or overdraft limit."""

    metadata: Mapping[str, str | None] = {}
    """A merge patch (RFC 7396): None removes an entry."""
    replace_metadata: bool = False
    """Remove all entries first."""
    overdraft_limit: str | None = None
    """None: unchanged."""
    if_match: tuple[int, ...] | None = None
    """Only at one of these versions; None: at any."""


class FreezeWallet(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="freeze_wallet",
):
    """Stop a wallet's transfers in one direction, or in both."""

    direction: Literal["both", "debit", "credit"]
    reason: str | None = None
    if_match: tuple[int, ...] | None = None


class UnfreezeWallet(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="unfreeze_wallet",
):
    """Let a frozen wallet's transfers go on."""

    reason: str | None = None
    if_match: tuple[int, ...] | None = None


class CloseWallet(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="close_wallet",
):
    """Close an empty wallet for ever."""

    reason: str | None = None
    if_match: tuple[int, ...] | None = None


class RequestedExpiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a pending transfer is to settle itself: ``at`` a time, or ``after_s`` seconds.

    Exactly one of the two. The shard checks the bounds, by its own clock.
    """

    at: datetime | None = None
    after_s: int | None = None
    action: Literal["fail", "complete"] = "fail"


class CreateTransfer(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="create_transfer",
):
    """Put money in (debit) or take money out (credit), held (pending) or at once (completed)."""

    transfer_id: TransferId
    type: Literal["debit", "credit"]
    status: Literal["pending", "completed"]
    amount: str
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    expiry: RequestedExpiry | None = None
    """Only of a pending transfer."""


class RefundTransfer(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="refund_transfer",
):
    """Return what a transfer of the same wallet has completed, or a part of it, by a new transfer
    the other way. Always under an idempotency key: a repetition would return it twice."""

    transfer_id: TransferId
    """Of the new transfer."""
    refunds: TransferId
    status: Literal["pending", "completed"]
    amount: str | None = None
    """None: all that can still be refunded."""
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    expiry: RequestedExpiry | None = None
    """Only of a pending refund."""


class SettleTransfer(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="settle_transfer",
):
    """Complete or revert (fail) a pending transfer."""

    transfer_id: TransferId
    status: Literal["completed", "failed"]
    amount: str | None = None
    """How much of it to complete. None: all that is left. Not of a reversal."""
    final: bool = True
    """Whether the rest is released. False: it stays held. Then the command has a key."""
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    delivery_id: TransferId | None = None
    """Of a completion without an idempotency key: the same in all deliveries of it. A refusal of
    the second one stops the first one by it, although the wallet may be unfrozen meanwhile."""


class ExpireTransfer(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="expire_transfer",
):
    """Settle a pending transfer if it has expired. The shard's own command, never a client's."""

    transfer_id: TransferId


class ClaimKey(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="claim_key",
):
    """Bind an idempotency key to one request whose parts are decided wallet by wallet."""


ControlWallet = UpdateWallet | FreezeWallet | UnfreezeWallet | CloseWallet
"""Always under an idempotency key. The ingress makes one if the client sent none, so that a second
delivery is recognised: none of these is harmless to repeat after another one."""

Command = (
    CreateWallet
    | ControlWallet
    | CreateTransfer
    | RefundTransfer
    | SettleTransfer
    | ExpireTransfer
    | ClaimKey
)


class Idempotency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An idempotency key and the fingerprint of the request that it was sent with."""

    key: IdempotencyKey
    fingerprint: bytes
    """SHA-256 over the client's request, without anything that the service added."""
    request: bytes = b""
    """Of a batch: SHA-256 over the whole request; ``fingerprint`` covers its part for one wallet.
    They are equal if the request has no other part."""

    @property
    def is_part(self) -> bool:
        """Whether the request has commands for other wallets, too."""
        return bool(self.request) and self.request != self.fingerprint


class CommandItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command of a request, with its own idempotency key if the client sent one."""

    command: Command
    idempotency: Idempotency | None = None


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The commands of one client request for one wallet: decided in order, in one transaction.

    ``wallet_id`` is the wallet, or the scope of a key that belongs to no wallet. ``atomic``:
    the first refused item rolls back the ones before it. ``attempt`` counts deliveries to a
    shard: from the second on the command may have been applied already.
    """

    wallet_id: WalletId
    items: tuple[CommandItem, ...]
    request_id: str
    timeout_s: float
    """Remaining time of the client's request, measured from delivery."""
    atomic: bool = False
    is_batch: bool = False
    """The client sent a batch: the response contains the wallet after the batch."""
    idempotency: Idempotency | None = None
    """Idempotency key of the whole request."""
    attempt: int = 1
    api_key_id: str | None = None
    """Id of the request's API key."""
    traceparent: str | None = None
    """W3C ``traceparent`` of a request that is traced."""
