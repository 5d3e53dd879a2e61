"""API keys for tests: an in-memory source, a manual clock, and an authenticator over both."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

from serve_app.auth.api_key import NewApiKey, generate
from serve_app.auth.authenticator import Authenticator, RateLimit
from serve_app.auth.cache import CacheLimits, KeyCache
from serve_app.auth.store import ApiKeyRecord, KeysUnavailable

MADE_AT = datetime(2026, 1, 2, tzinfo=UTC)
NO_LIMIT = RateLimit(rate_per_s=0.0, burst_s=1.0)


class Clock:
    """A clock that tests set, in seconds."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class InMemoryKeySource:
    """In-memory key source. Answers immediately, waits for `may_answer`, or fails."""

    def __init__(self) -> None:
        self.records: dict[str, ApiKeyRecord] = {}
        self.queries: list[list[str]] = []
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def make(self, *scopes: str, **fields: Any) -> NewApiKey:
        key = generate()
        self.records[key.key_id] = ApiKeyRecord(
            key_id=key.key_id,
            name="a test's",
            secret_hash=key.secret_hash,
            scopes=scopes or ("wallets:read", "wallets:write"),
            created_at=MADE_AT,
            **fields,
        )
        return key

    async def find(self, key_ids: Sequence[str]) -> dict[str, ApiKeyRecord]:
        self.queries.append(list(key_ids))
        answer = {key_id: self.records[key_id] for key_id in key_ids if key_id in self.records}
        await self.may_answer.wait()
        if self.is_away:
            raise KeysUnavailable("injected: unavailable")
        return answer


class AuthFixture:
    """An authenticator with its dependencies. Cached keys expire after 4 s of `clock`."""

    def __init__(self, limit: RateLimit = NO_LIMIT, *, keys_max: int = 100) -> None:
        self.keys = InMemoryKeySource()
        self.clock = Clock()
        self.now = Clock(MADE_AT.timestamp())
        limits = CacheLimits(staleness_s=4.0, keys_max=keys_max)
        self.cache = KeyCache(self.keys, limits, clock=self.clock)
        self.authenticator = Authenticator(self.cache, limit, clock=self.clock, now=self.now)


def make_scope(*authorization: str) -> Scope:
    """A request with these Authorization headers."""
    headers = [(b"authorization", value.encode("latin-1")) for value in authorization]
    return {"type": "http", "headers": [(b"host", b"here"), *headers]}


def with_key(key: NewApiKey) -> Scope:
    return make_scope(f"Bearer {key.text}")
