"""Identifiers. All are canonical lower-case UUID strings. `serve_app.http.ids` makes new ones.

Strings, not ``uuid.UUID``: they travel through JSON, message packs, SQL parameters and
subjects unchanged, and building a UUID object per command costs more than deciding it.
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
    """``text`` as a canonical UUID (lower case, with hyphens), or None if it is none."""
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def wallet_creation_scope(key: IdempotencyKey) -> WalletId:
    """The wallet-shaped scope under which a wallet creation's key is kept.

    Keys are unique per wallet, and every unique key includes a wallet id so that tables can
    be distributed by it. A creation has no wallet yet: its scope is derived from the key, so
    that every retry finds the same shard and the same row.
    """
    return WalletId(str(uuid5(_WALLET_CREATION_NAMESPACE, key)))


def batch_scope(key: IdempotencyKey) -> WalletId:
    """The wallet-shaped scope under which the key of a batch over many wallets is claimed.

    The batch is decided wallet by wallet, and none of them knows of the others. Here is written
    which request the key belongs to, before any of them is asked.
    """
    return WalletId(str(uuid5(_BATCH_SCOPE, key)))
