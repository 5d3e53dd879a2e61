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
    Command,
    CommandItem,
    CreateTransfer,
    CreateWallet,
    SettleTransfer,
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
    assert not isinstance(command, ClaimKey), "clients can't send this command"
    common = [command.reference_id, command.metadata]
    if isinstance(command, CreateTransfer):
        return [command.type, command.status, command.amount, *common]
    if isinstance(command, SettleTransfer):
        return [f"to {command.status}", command.transfer_id, *common]
    if isinstance(command, CreateWallet):
        return ["wallet", command.currency, command.scale, *common]
    assert_never(command)
