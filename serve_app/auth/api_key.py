"""The format of an API key: ``wk_<id>_<secret>``, lower-case hexadecimal.

The id is public: it identifies the key in the database, in lists and in the journal. The secret is
256 random bits and can't be guessed. So a fast hash (SHA-256) is as safe as a slow password hash,
which would be too expensive per request.

The prefix and the fixed format are for secret scanners:
``wk_[0-9a-f]{16}_[0-9a-f]{64}``.
"""

import re
import secrets
from hashlib import sha256
from typing import Final, Literal, NamedTuple, get_args

KeyScope = Literal["wallets:read", "wallets:write", "admin"]
"""Scopes of a key. ``admin`` includes all of them."""

SCOPES: Final[tuple[KeyScope, ...]] = get_args(KeyScope)

PREFIX: Final = "wk"

_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_SHAPE: Final = re.compile(
    rb"%s_([0-9a-f]{%d})_([0-9a-f]{%d})" % (PREFIX.encode(), 2 * _ID_BYTES, 2 * _SECRET_BYTES)
)


class NewApiKey(NamedTuple):
    """A new key: the text, shown once, and what is stored."""

    text: str
    key_id: str
    secret_hash: bytes


class Credential(NamedTuple):
    """A key that a client sent: well-formed, not verified."""

    key_id: str
    secret_hash: bytes


def generate() -> NewApiKey:
    """A new random key."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    return NewApiKey(f"{PREFIX}_{key_id}_{secret}", key_id, hash_of(secret.encode()))


def hash_of(secret: bytes) -> bytes:
    """The stored hash of a secret: SHA-256, 32 bytes."""
    return sha256(secret).digest()


def parse_credential(token: bytes) -> Credential | None:
    """The parts of ``token``, or None if it isn't a well-formed key."""
    found = _SHAPE.fullmatch(token)
    if found is None:
        return None
    return Credential(found[1].decode(), hash_of(found[2]))


def granted_scopes(scopes: list[str]) -> frozenset[str]:
    """All scopes that ``scopes`` include."""
    return frozenset(SCOPES) if "admin" in scopes else frozenset(scopes)
