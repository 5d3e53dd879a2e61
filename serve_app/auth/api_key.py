"""What an API key looks like: ``wk_<id>_<secret>``, all of it lower-case hexadecimal.

The id is public: it is how a key is found, named in lists and written beside what it did. The
secret is 256 random bits. Nobody can try so many, so a fast hash keeps it as well as a slow one
would, and a request is not the place for a slow one: those are for passwords, which can be guessed.

The prefix and the fixed shape are for programs that look for leaked secrets:
``wk_[0-9a-f]{16}_[0-9a-f]{64}``.
"""

import re
import secrets
from hashlib import sha256
from typing import Final, Literal, NamedTuple, get_args

KeyScope = Literal["wallets:read", "wallets:write", "admin"]
"""What a key may do. ``admin`` may do everything."""

SCOPES: Final[tuple[KeyScope, ...]] = get_args(KeyScope)

PREFIX: Final = "wk"

_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_SHAPE: Final = re.compile(
    rb"%s_([0-9a-f]{%d})_([0-9a-f]{%d})" % (PREFIX.encode(), 2 * _ID_BYTES, 2 * _SECRET_BYTES)
)


class NewApiKey(NamedTuple):
    """A key as it is shown once, and what is kept of it."""

    text: str
    key_id: str
    secret_hash: bytes


class Credential(NamedTuple):
    """A key that a client sent: it has the right shape, which says nothing about the rest."""

    key_id: str
    secret_hash: bytes


def generate() -> NewApiKey:
    """A new random key."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    return NewApiKey(f"{PREFIX}_{key_id}_{secret}", key_id, hash_of(secret.encode()))


def hash_of(secret: bytes) -> bytes:
    """What is kept of a secret: SHA-256, 32 bytes."""
    return sha256(secret).digest()


def parse_credential(token: bytes) -> Credential | None:
    """The parts of ``token``, or None if no key of ours looks like that."""
    found = _SHAPE.fullmatch(token)
    if found is None:
        return None
    return Credential(found[1].decode(), hash_of(found[2]))


def granted_scopes(scopes: list[str]) -> frozenset[str]:
    """Everything that a key with ``scopes`` may do."""
    return frozenset(SCOPES) if "admin" in scopes else frozenset(scopes)
