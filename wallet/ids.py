"""Identifiers: canonical lower-case UUID strings. `serve_app.http.ids` generates new ones.

Strings, not ``uuid.UUID``: they are used unchanged in JSON, MessagePack, SQL parameters and NATS
subjects, and creating a UUID object per command costs more than deciding it.
"""

import re
from typing import NewType
from uuid import UUID, uuid5

WalletId = NewType("WalletId", str)
TransferId = NewType("TransferId", str)
IdempotencyKey = NewType("IdempotencyKey", str)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_WALLET_CREATION_NAMESPACE = UUID("3d4be0c2-6a0b-5b0e-9d57-2f1d3a1f7c11")
_BATCH_SCOPE = UUID("0c1f5e0a-93d6-5d55-8f0e-6b6a35d0f4b2")


def canonical_uuid(text: str) -> str | None:
    """``text`` as a canonical UUID (lower case, with hyphens), or None if it is no UUID."""
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def wallet_creation_scope(key: IdempotencyKey) -> WalletId:
    """The scope (formatted as a wallet id) of the idempotency key of a wallet creation.

    Keys are unique per wallet, and every unique key includes a wallet id so that tables can
    be distributed by it. A creation has no wallet yet: its scope is derived from the key, so
    that every retry finds the same shard and the same row.
    """
    return WalletId(str(uuid5(_WALLET_CREATION_NAMESPACE, key)))


def batch_scope(key: IdempotencyKey) -> WalletId:
    """The scope (formatted as a wallet id) of the idempotency key of a multi-wallet batch.

    The batch is decided wallet by wallet, each independently of the others. Before that, the key
    is bound to its request under this scope.
    """
    return WalletId(str(uuid5(_BATCH_SCOPE, key)))
