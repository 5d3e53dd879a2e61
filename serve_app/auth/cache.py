"""A replica's API key cache, bounded in age and in size.

Staleness. A cached row is valid for ``staleness_s`` from the START of its query. A query that
starts after a revocation returns the key as revoked, so a revoked key is rejected everywhere
within ``staleness_s``. After half of that time, a request with the key triggers a refresh in the
background: requests never wait for a key in use.

Single flight. One query runs at a time, for all keys requested meanwhile. A thousand requests with
one unknown key, or with a thousand of them, are one query.

Failure. Without Postgres a cached key is accepted until it is stale; then requests get 503 (fail
closed). After a failed query there is a short pause.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from serve_app.auth.store import ApiKeyRecord, KeysUnavailable
from serve_app.auth.token_bucket import TokenBucket

_log = structlog.get_logger(__name__)

PENDING_LOOKUPS_MAX: Final = 1_000
"""Keys waiting for the next query; above it, requests with an uncached key get 503."""

RETRY_S: Final = 0.25
"""Pause after a failed query."""


class KeySource(Protocol):
    """The store of API keys."""

    async def find(self, key_ids: Sequence[str]) -> dict[str, ApiKeyRecord]:
        """Those of ``key_ids`` that exist.

        Raises:
            KeysUnavailable: the store doesn't respond.
        """


class CachedKey:
    """A cached key. ``used_at`` and ``written_at``: seconds since the epoch."""

    __slots__ = ("bucket", "fetched_at_s", "granted", "record", "used_at", "written_at")

    def __init__(self, record: ApiKeyRecord, fetched_at_s: float) -> None:
        self.bucket: TokenBucket | None = None
        self.used_at = 0.0
        self.written_at = 0.0
        self.refresh(record, fetched_at_s)

    def refresh(self, record: ApiKeyRecord, fetched_at_s: float) -> None:
        self.record = record
        self.granted = record.granted
        self.fetched_at_s = fetched_at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """``staleness_s``: see above. ``keys_max``: limit for existing keys, and separately for unknown
    key ids, so that a flood of invalid keys evicts no valid one."""

    staleness_s: float
    keys_max: int


class KeyCache:
    """The keys of one replica, in one event loop. ``clock`` is monotonic, in seconds."""

    def __init__(
        self, source: KeySource, limits: CacheLimits, *, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._limits = limits
        self._clock = clock
        # In the order of their queries: the first is evicted first.
        self._cached: dict[str, CachedKey] = {}
        self._negative: dict[str, float] = {}
        self._pending: dict[str, asyncio.Future[CachedKey | None]] = {}
        self._queued: list[str] = []
        """Pending key ids that are not part of the running query."""
        self._query: asyncio.Task[None] | None = None
        self._failed: tuple[float, KeysUnavailable] | None = None

    def __len__(self) -> int:
        return len(self._cached) + len(self._negative)

    @property
    def cached(self) -> list[CachedKey]:
        return list(self._cached.values())

    async def find(self, key_id: str) -> CachedKey | None:
        """The key, or None if it doesn't exist; at most ``staleness_s`` old.

        Raises:
            KeysUnavailable: it isn't cached or is stale, and Postgres doesn't respond.
        """
        now = self._clock()
        staleness_s = self._limits.staleness_s
        cached = self._cached.get(key_id)
        if cached is not None:
            age_s = now - cached.fetched_at_s
            if age_s < staleness_s:
                if age_s > staleness_s / 2 and self._failure(now) is None:
                    self._fetch(key_id)
                return cached
        elif now - self._negative.get(key_id, -staleness_s) < staleness_s:
            return None
        failure = self._failure(now)
        if failure is not None:
            raise failure
        if (
            cached is None
            and key_id not in self._pending
            and len(self._queued) >= PENDING_LOOKUPS_MAX
        ):
            raise KeysUnavailable("too many API key look-ups are pending")
        return await asyncio.shield(self._fetch(key_id))

    def _failure(self, now: float) -> KeysUnavailable | None:
        if self._failed is not None and now - self._failed[0] < RETRY_S:
            return KeysUnavailable(str(self._failed[1]))
        return None

    def _fetch(self, key_id: str) -> asyncio.Future[CachedKey | None]:
        pending = self._pending.get(key_id)
        if pending is None:
            pending = self._pending[key_id] = asyncio.get_running_loop().create_future()
            pending.add_done_callback(_consume_exception)
            self._queued.append(key_id)
        if self._query is None:
            self._query = asyncio.create_task(self._run_queries())
        return pending

    async def _run_queries(self) -> None:
        try:
            while self._queued:
                key_ids, self._queued = self._queued, []
                await self._run_query(key_ids)
        finally:
            self._query = None

    async def _run_query(self, key_ids: list[str]) -> None:
        fetched_at_s = self._clock()
        try:
            found = await self._source.find(key_ids)
        except BaseException as error:
            for key_id in key_ids:
                self._pending.pop(key_id).set_exception(KeysUnavailable(str(error)))
            if not isinstance(error, KeysUnavailable):
                raise
            self._failed = (self._clock(), error)
            _log.warning("api key lookup failed", cause=str(error), keys=len(key_ids))
            return
        self._failed = None
        for key_id in key_ids:
            cached = self._store(key_id, found.get(key_id), fetched_at_s)
            self._pending.pop(key_id).set_result(cached)

    def _store(
        self, key_id: str, record: ApiKeyRecord | None, fetched_at_s: float
    ) -> CachedKey | None:
        cached = self._cached.pop(key_id, None)
        self._negative.pop(key_id, None)
        if record is None:
            self._negative[key_id] = fetched_at_s
            if len(self._negative) > self._limits.keys_max:
                del self._negative[next(iter(self._negative))]
            return None
        if cached is None:
            cached = CachedKey(record, fetched_at_s)
        else:
            cached.refresh(record, fetched_at_s)
        self._cached[key_id] = cached
        if len(self._cached) > self._limits.keys_max:
            del self._cached[next(iter(self._cached))]
        return cached


def _consume_exception(future: asyncio.Future[CachedKey | None]) -> None:
    """A background refresh has no waiter: mark its exception as retrieved."""
    if not future.cancelled():
        future.exception()
