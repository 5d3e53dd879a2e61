"""Who may pass: the key that a request came with, its scope, and how often it comes.

Everything that a request needs is remembered (cache.py): it costs a hash, a comparison in constant
time, and no query. What is refused is refused before the body is read.
"""

import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from serve_app.auth.api_key import Credential, KeyScope, parse_credential
from serve_app.auth.authenticated_request import STATE, AuthenticatedRequest, rate_limited
from serve_app.auth.cache import CachedKey, KeyCache
from serve_app.auth.store import KeysUnavailable
from serve_app.auth.token_bucket import TokenBucket
from serve_app.http.problems import ProblemError

_REALM: Final = 'Bearer realm="wallet"'


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Of a key that has none of its own. ``rate_per_s`` 0: none. A burst is ``burst_s`` of it."""

    rate_per_s: float
    burst_s: float


class Authenticator:
    """Admits requests of one replica. ``clock`` is monotonic, ``now`` tells the time; seconds."""

    def __init__(
        self,
        cache: KeyCache,
        limit: RateLimit,
        *,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._clock = clock
        self._now = now

    async def authenticate(self, scope: Scope, needed: KeyScope) -> None:
        """Let a request through, and remember in ``scope`` who it is.

        Raises:
            Problem: key_required, key_invalid, scope_missing, rate_limited; unavailable, if
                nobody knows whether the key is good.
        """
        sent = _key_in(scope["headers"])
        held = await self._valid_key(sent, needed)
        wait_s = self._take_tokens(held, 1)
        if wait_s:
            raise rate_limited(wait_s)
        scope.setdefault("state", {})[STATE] = AuthenticatedRequest(self, held, sent, needed)

    async def is_allowed(self, scope: Scope, needed: KeyScope) -> bool:
        """Whether the request's key, if it has one, may do ``needed``. Takes none of its rate."""
        try:
            await self._valid_key(_key_in(scope["headers"]), needed)
        except ProblemError:
            return False
        return True

    async def recheck(self, sent: Credential, needed: KeyScope, count: int) -> float:
        """As `admit`, for ``count`` more of an admitted request; returns seconds to wait, or 0."""
        return self._take_tokens(await self._valid_key(sent, needed), count)

    async def _valid_key(self, sent: Credential, needed: KeyScope) -> CachedKey:
        try:
            held = await self._cache.find(sent.key_id)
        except KeysUnavailable:
            raise ProblemError(
                "unavailable",
                "Keys can't be checked now.",
                headers={"Retry-After": "1"},
                applied="no",
            ) from None
        if held is None or not hmac.compare_digest(held.record.secret_hash, sent.secret_hash):
            raise _invalid("No key of this service looks like this.")
        record, now = held.record, self._now()
        if record.revoked_at is not None:
            raise _invalid("This key was revoked.")
        if record.expires_at is not None and record.expires_at.timestamp() <= now:
            raise _invalid("This key has expired.")
        if needed not in held.granted:
            challenge = f'{_REALM}, error="insufficient_scope", scope="{needed}"'
            raise ProblemError(
                "scope_missing",
                f"This needs a key with the scope {needed}.",
                headers={"WWW-Authenticate": challenge},
            )
        held.used_at = now
        return held

    def _take_tokens(self, held: CachedKey, count: int) -> float:
        own = held.record.rate_per_s
        rate_per_s = self._limit.rate_per_s if own is None else own
        if not rate_per_s:
            return 0.0
        now_s = self._clock()
        if held.bucket is None or held.bucket.rate_per_s != rate_per_s:
            burst = max(1.0, rate_per_s * self._limit.burst_s)
            held.bucket = TokenBucket(rate_per_s=rate_per_s, burst=burst, now_s=now_s)
        return held.bucket.take(count, now_s)


def _key_in(headers: Iterable[tuple[bytes, bytes]]) -> Credential:
    """The key in the one Authorization header.

    Raises:
        Problem: key_required, key_invalid. What was sent is never told back.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        raise ProblemError(
            "key_required",
            "Send an API key: Authorization: Bearer wk_…",
            headers={"WWW-Authenticate": _REALM},
        )
    scheme, _, token = found[0].partition(b" ")
    sent = parse_credential(token.strip()) if scheme.lower() == b"bearer" else None
    if sent is None or len(found) > 1:
        raise _invalid("Send one header, Authorization: Bearer and the key, as it was shown.")
    return sent


def _invalid(detail: str) -> ProblemError:
    challenge = f'{_REALM}, error="invalid_token"'
    return ProblemError("key_invalid", detail, headers={"WWW-Authenticate": challenge})
