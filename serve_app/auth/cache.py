"""Keys as a replica remembers them: never longer than a bound, never more than a bound.

Staleness. An answer of Postgres counts for ``staleness_s`` from the moment that it was ASKED for. A
key that is revoked at some moment is revoked in every answer that is asked for later, so it
stops everywhere within ``staleness_s``. From half of that on, whoever uses a key has it read
again in the background: a key in use is never waited for.

Single flight. One query is under way at a time, for all keys that were asked for meanwhile. A
thousand requests with one unknown key, or with a thousand of them, are one query.

Failure. While Postgres is away a remembered key goes on until its answer is too old. Then nobody
knows whether it is still good, and it is refused as such: never let through. After a failed
query no other is tried for a moment.
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
"""Keys that wait for the next query; past it a key that isn't remembered gets a 503."""

RETRY_S: Final = 0.25
"""Pause after a failed query."""


class KeySource(Protocol):
    """Where keys are kept."""

    async def find(self, key_ids: Sequence[str]) -> dict[str, ApiKeyRecord]:
        """Those of ``key_ids`` that exist.

        Raises:
            KeysUnavailable: nobody knows.
        """


class CachedKey:
    """A key that is remembered. ``used_at`` and ``written_at`` are seconds since the epoch."""

    __slots__ = ("bucket", "fetched_at_s", "granted", "record", "used_at", "written_at")

    def __init__(self, record: ApiKeyRecord, asked_at_s: float) -> None:
        self.bucket: TokenBucket | None = None
        self.used_at = 0.0
        self.written_at = 0.0
        self.refresh(record, asked_at_s)

    def refresh(self, record: ApiKeyRecord, asked_at_s: float) -> None:
        self.record = record
        self.granted = record.granted
        self.fetched_at_s = asked_at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """``staleness_s``: see above. ``keys_max``: of keys that exist, and again of those that don't,
    so that a flood of made-up keys pushes no real one out."""

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
        # In the order in which they were asked for: the first is the least recently used.
        self._held: dict[str, CachedKey] = {}
        self._negative: dict[str, float] = {}
        self._asked: dict[str, asyncio.Future[CachedKey | None]] = {}
        self._next: list[str] = []
        """Of those asked for, the ones that no query is under way for yet."""
        self._query: asyncio.Task[None] | None = None
        self._failed: tuple[float, KeysUnavailable] | None = None

    def __len__(self) -> int:
        return len(self._held) + len(self._negative)

    @property
    def held(self) -> list[CachedKey]:
        return list(self._held.values())

    async def find(self, key_id: str) -> CachedKey | None:
        """The key, or None if there is none; no older than ``staleness_s``.

        Raises:
            KeysUnavailable: it isn't remembered (any more) and Postgres doesn't answer.
        """
        now = self._clock()
        staleness_s = self._limits.staleness_s
        held = self._held.get(key_id)
        if held is not None:
            age_s = now - held.fetched_at_s
            if age_s < staleness_s:
                if age_s > staleness_s / 2 and self._failure(now) is None:
                    self._fetch(key_id)
                return held
        elif now - self._negative.get(key_id, -staleness_s) < staleness_s:
            return None
        failure = self._failure(now)
        if failure is not None:
            raise failure
        if held is None and key_id not in self._asked and len(self._next) >= PENDING_LOOKUPS_MAX:
            raise KeysUnavailable("too many keys wait to be looked up")
        return await asyncio.shield(self._fetch(key_id))

    def _failure(self, now: float) -> KeysUnavailable | None:
        if self._failed is not None and now - self._failed[0] < RETRY_S:
            return KeysUnavailable(str(self._failed[1]))
        return None

    def _fetch(self, key_id: str) -> asyncio.Future[CachedKey | None]:
        asked = self._asked.get(key_id)
        if asked is None:
            asked = self._asked[key_id] = asyncio.get_running_loop().create_future()
            asked.add_done_callback(_consume_exception)
            self._next.append(key_id)
        if self._query is None:
            self._query = asyncio.create_task(self._run_queries())
        return asked

    async def _run_queries(self) -> None:
        try:
            while self._next:
                key_ids, self._next = self._next, []
                await self._run_query(key_ids)
        finally:
            self._query = None

    async def _run_query(self, key_ids: list[str]) -> None:
        asked_at_s = self._clock()
        try:
            found = await self._source.find(key_ids)
        except BaseException as error:
            for key_id in key_ids:
                self._asked.pop(key_id).set_exception(KeysUnavailable(str(error)))
            if not isinstance(error, KeysUnavailable):
                raise
            self._failed = (self._clock(), error)
            _log.warning("api key lookup failed", cause=str(error), keys=len(key_ids))
            return
        self._failed = None
        for key_id in key_ids:
            held = self._remember(key_id, found.get(key_id), asked_at_s)
            self._asked.pop(key_id).set_result(held)

    def _remember(
        self, key_id: str, record: ApiKeyRecord | None, asked_at_s: float
    ) -> CachedKey | None:
        held = self._held.pop(key_id, None)
        self._negative.pop(key_id, None)
        if record is None:
            self._negative[key_id] = asked_at_s
            if len(self._negative) > self._limits.keys_max:
                del self._negative[next(iter(self._negative))]
            return None
        if held is None:
            held = CachedKey(record, asked_at_s)
        else:
            held.refresh(record, asked_at_s)
        self._held[key_id] = held
        if len(self._held) > self._limits.keys_max:
            del self._held[next(iter(self._held))]
        return held


def _consume_exception(future: asyncio.Future[CachedKey | None]) -> None:
    """Nobody waits for a refresh: its failure is told when it matters."""
    if not future.cancelled():
        future.exception()
