"""API keys in Postgres."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import asyncpg

from serve_app.auth.api_key import NewApiKey, granted_scopes

_FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)

_COLUMNS: Final = """id, name, secret_hash, scopes, rate_per_s, created_at, expires_at, revoked_at,
    last_used_at"""
_FIND: Final = f"SELECT {_COLUMNS} FROM api_keys WHERE id = ANY($1::text[])"
_LIST: Final = f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id"
_INSERT: Final = """
INSERT INTO api_keys (id, name, secret_hash, scopes, rate_per_s, expires_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""
_REVOKE: Final = """
UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL
"""
_TOUCH: Final = """
UPDATE api_keys k SET last_used_at = u.used_at
FROM unnest($1::text[], $2::timestamptz[]) AS u (id, used_at)
WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.used_at)
"""
_ATTRIBUTED_EVENTS: Final = """
SELECT e.version, e.type, e.occurred_at, e.transfer_id::text, e.made_by, k.name
FROM wallet_events e LEFT JOIN api_keys k ON k.id = e.made_by
WHERE e.wallet_id = $1::uuid AND ($2::uuid IS NULL OR e.transfer_id = $2::uuid)
ORDER BY e.version DESC LIMIT $3
"""

ResultT = TypeVar("ResultT")


class KeysUnavailable(Exception):
    """Postgres failed or timed out, so the key can't be verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRecord:
    """A stored key. Times are UTC."""

    key_id: str
    name: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    created_at: datetime
    rate_per_s: float | None = None
    """Requests per second and replica; None: the default setting; 0: no limit."""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def granted(self) -> frozenset[str]:
        return granted_scopes(list(self.scopes))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributedEvent:
    """An event of a wallet and the API key of its request (None: authentication was off)."""

    version: int
    type: str
    occurred_at: datetime
    transfer_id: str | None
    key_id: str | None
    key_name: str | None


class KeyStore:
    """API keys in Postgres. The caller owns the pool. Every call has a timeout.

    Raises:
        KeysUnavailable: from every method, if Postgres fails or times out.
    """

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def find(self, key_ids: Sequence[str]) -> dict[str, ApiKeyRecord]:
        """Those of ``key_ids`` that exist, revoked and expired ones too."""
        rows = await self._execute(lambda: self._pool.fetch(_FIND, list(key_ids)))
        return {row["id"]: _record(row) for row in rows}

    async def all(self) -> list[ApiKeyRecord]:
        """All keys, revoked and expired ones too, oldest first."""
        return [_record(row) for row in await self._execute(lambda: self._pool.fetch(_LIST))]

    async def add(
        self,
        key: NewApiKey,
        *,
        name: str,
        scopes: Sequence[str],
        rate_per_s: float | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Store a new key, with a hash of its secret."""
        values = (key.key_id, name, key.secret_hash, list(scopes), rate_per_s, expires_at)
        await self._execute(lambda: self._pool.execute(_INSERT, *values))

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key permanently; False if it is unknown or already revoked."""
        status: str = await self._execute(lambda: self._pool.execute(_REVOKE, key_id))
        return status == "UPDATE 1"

    async def touch(self, used: Mapping[str, float]) -> None:
        """Update last-used times (seconds since the epoch); they never decrease."""
        key_ids = sorted(used)  # Lock order: two replicas may update the same keys concurrently.
        times = [datetime.fromtimestamp(used[key_id], UTC) for key_id in key_ids]
        await self._execute(lambda: self._pool.execute(_TOUCH, key_ids, times))

    async def attributed_events(
        self, wallet_id: str, transfer_id: str | None, *, limit: int
    ) -> list[AttributedEvent]:
        """The latest ``limit`` events of a wallet, or of one transfer of it, newest first."""
        rows = await self._execute(
            lambda: self._pool.fetch(_ATTRIBUTED_EVENTS, wallet_id, transfer_id, limit)
        )
        return [
            AttributedEvent(
                version=row["version"],
                type=row["type"],
                occurred_at=row["occurred_at"],
                transfer_id=row["transfer_id"],
                key_id=row["made_by"],
                key_name=row["name"],
            )
            for row in rows
        ]

    async def _execute(self, operation: Callable[[], Awaitable[ResultT]]) -> ResultT:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await operation()
        except _FAILURES as error:
            raise KeysUnavailable(f"{type(error).__name__}: {error}") from error


def _record(row: Any) -> ApiKeyRecord:
    values = dict(row)
    return ApiKeyRecord(key_id=values.pop("id"), scopes=tuple(values.pop("scopes")), **values)
