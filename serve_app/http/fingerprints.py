"""Request fingerprints: they detect a different request under the same idempotency key.

They include everything the client requested, in canonical form (``10.5`` equals ``10.50``, on every
route), and nothing that the service added.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import assert_never

from serve_app.http.requests import canonical_json
from wallet.commands import (
    ClaimKey,
    CloseWallet,
    Command,
    CommandItem,
    CreateTransfer,
    CreateWallet,
    ExpireTransfer,
    FreezeWallet,
    RefundTransfer,
    SettleTransfer,
    UnfreezeWallet,
    UpdateWallet,
)


def fingerprint(command: Command) -> bytes:
    """SHA-256 of the client's fields of ``command``."""
    return sha256(canonical_json(_fingerprinted_fields(command))).digest()


def batch_fingerprint(items: Sequence[CommandItem], *, atomic: bool = False) -> bytes:
    """SHA-256 of a one-wallet batch: its items in order, with their idempotency keys."""
    asked = [
        [item.idempotency.key if item.idempotency else None, _fingerprinted_fields(item.command)]
        for item in items
    ]
    return sha256(canonical_json(["batch", atomic, asked])).digest()


def many_wallets_fingerprint(wallets: Sequence[str], parts: Iterable[bytes]) -> bytes:
    """SHA-256 of a batch over many wallets.

    ``wallets``: each item's wallet, in order; ``parts``: the fingerprints of each wallet's items.
    Together they define every item and its position.
    """
    return sha256(canonical_json(["many", wallets]) + b"".join(parts)).digest()


def _fingerprinted_fields(command: Command) -> list[object]:
    assert not isinstance(command, ClaimKey | ExpireTransfer), "clients can't send this command"
    if isinstance(command, UpdateWallet):
        changes = [command.metadata, command.replace_metadata, command.overdraft_limit]
        return ["update", *changes, command.if_match]
    if isinstance(command, FreezeWallet):
        return ["freeze", command.direction, command.reason, command.if_match]
    if isinstance(command, UnfreezeWallet | CloseWallet):
        name = "close" if isinstance(command, CloseWallet) else "unfreeze"
        return [name, command.reason, command.if_match]
    common = [command.reference_id, command.metadata]
    if isinstance(command, CreateTransfer):
        # What an earlier release doesn't know is left out, if it isn't asked for: its keys are
        # still known.
        expiry = command.expiry
        expires = [] if expiry is None else [expiry.at, expiry.after_s, expiry.action]
        return [command.type, command.status, command.amount, *common, *expires]
    if isinstance(command, RefundTransfer):
        returned = [command.refunds, command.status, command.amount]
        expiry = command.expiry
        expires = [] if expiry is None else [expiry.at, expiry.after_s, expiry.action]
        return ["refund", *returned, *common, *expires]
    if isinstance(command, SettleTransfer):
        part: list[object] = [] if command.amount is None else [command.amount]
        part += [] if command.final else ["and hold the rest"]
        return [f"to {command.status}", command.transfer_id, *common, *part]
    if isinstance(command, CreateWallet):
        # Without a limit as in releases that had none: their keys are still known.
        limit = [command.overdraft_limit] if command.overdraft_limit != "0" else []
        return ["wallet", command.currency, command.scale, *common, *limit]
    assert_never(command)
