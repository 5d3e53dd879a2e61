"""Fingerprints of requests: whether two requests under one key are the same request.

Everything that the client asked for goes in, in canonical form (``10.5`` is ``10.50``, by whichever
route it came); nothing that the service added does.
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
    """SHA-256 of what ``command`` asks for."""
    return sha256(canonical_json(_fingerprinted_fields(command))).digest()


def batch_fingerprint(items: Sequence[CommandItem], *, atomic: bool = False) -> bytes:
    """SHA-256 of what a batch asks of one wallet: items in order, with the keys that they have."""
    asked = [
        [item.idempotency.key if item.idempotency else None, _fingerprinted_fields(item.command)]
        for item in items
    ]
    return sha256(canonical_json(["batch", atomic, asked])).digest()


def many_wallets_fingerprint(wallets: Sequence[str], parts: Iterable[bytes]) -> bytes:
    """SHA-256 of what a batch asks of many wallets.

    ``wallets`` names each item's, in order; ``parts`` are the fingerprints of what is asked of
    each wallet. Together they say where every item stands.
    """
    return sha256(canonical_json(["many", wallets]) + b"".join(parts)).digest()


def _fingerprinted_fields(command: Command) -> list[object]:
    assert not isinstance(command, ClaimKey), "no client asks for this"
    common = [command.reference_id, command.metadata]
    if isinstance(command, CreateTransfer):
        return [command.type, command.status, command.amount, *common]
    if isinstance(command, SettleTransfer):
        return [f"to {command.status}", command.transfer_id, *common]
    if isinstance(command, CreateWallet):
        return ["wallet", command.currency, command.scale, *common]
    assert_never(command)
