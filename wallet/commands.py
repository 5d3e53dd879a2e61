"""What clients ask for, as the ingress hands it to the write side. Imperative, validated.

Amounts are canonical decimal strings: only the wallet knows its scale, so only the wallet's
shard can turn them into minor units.
"""

from collections.abc import Mapping
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
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}


class ClaimKey(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="claim_key",
):
    """Bind an idempotency key to one request whose parts are decided wallet by wallet."""


Command = CreateWallet | CreateTransfer | SettleTransfer | ClaimKey


class Idempotency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An idempotency key and the fingerprint of the request that it was sent with."""

    key: IdempotencyKey
    fingerprint: bytes
    """SHA-256 over everything the client asked for, and nothing the service added."""
    request: bytes = b""
    """Of a batch: SHA-256 over the whole request, of which ``fingerprint`` covers what it asks of
    one wallet. They are equal if that is all."""

    @property
    def is_part(self) -> bool:
        """The request asks something of other wallets, too."""
        return bool(self.request) and self.request != self.fingerprint


class CommandItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command of a submission, with a key of its own if the client gave it one."""

    command: Command
    idempotency: Idempotency | None = None


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client request asks of one wallet: decided in order, in one transaction.

    ``wallet_id`` is the wallet, or the scope of a key that belongs to no wallet. ``atomic``:
    the first refused item undoes the ones before it. ``attempt`` counts deliveries to a
    shard: from the second on the command may have been applied already.
    """

    wallet_id: WalletId
    items: tuple[CommandItem, ...]
    request_id: str
    timeout_s: float
    """How long the client still waits, measured from delivery."""
    atomic: bool = False
    is_batch: bool = False
    """The client sent a batch: it is answered with the wallet after all of it."""
    idempotency: Idempotency | None = None
    """A key for the submission as a whole."""
    attempt: int = 1
    api_key_id: str | None = None
    """Identifier of the API key that the request came with."""
    traceparent: str | None = None
    """W3C ``traceparent`` of a request that is traced."""
