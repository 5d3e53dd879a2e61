"""Authenticates requests: checks the API key, its scope and its rate limit.

Keys are cached (cache.py): a request costs a hash and a constant-time comparison, no query.
Requests are rejected before their body is read.
"""

import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from serve_app.auth.api_key import Credential, KeyScope, parse_credential
from serve_app.auth.authenticated_request import (
    STATE,
    AuthenticatedRequest,
    rate_limited,
    scope_missing,
)
from serve_app.auth.cache import CachedKey, KeyCache
from serve_app.auth.store import KeysUnavailable
from serve_app.auth.token_bucket import TokenBucket
from serve_app.http.problems import ProblemError

_REALM: Final = 'Bearer realm="wallet"'


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Default rate limit of a key; ``rate_per_s`` 0: no limit. Burst: ``rate_per_s * burst_s``."""

    rate_per_s: float
    burst_s: float


class Authenticator:
    """Authenticates the requests of one replica. ``clock``: monotonic; ``now``: Unix time."""

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

    async def authenticate(self, scope: Scope, required_scope: KeyScope) -> None:
        """Check a request's API key and store the result in ``scope``.

        Raises:
            Problem: key_required, key_invalid, scope_missing, rate_limited; unavailable, if the
                key can't be verified.
        """
        credential = _key_in(scope["headers"])
        cached = await self._valid_key(credential, required_scope)
        wait_s = self._take_tokens(cached, 1)
        if wait_s:
            raise rate_limited(wait_s)
        scope.setdefault("state", {})[STATE] = AuthenticatedRequest(
            self, cached, credential, required_scope
        )

    async def is_allowed(self, scope: Scope, required_scope: KeyScope) -> bool:
        """Whether the request has a key with the scope. Takes no token of its rate limit."""
        try:
            await self._valid_key(_key_in(scope["headers"]), required_scope)
        except ProblemError:
            return False
        return True

    async def recheck(self, credential: Credential, required_scope: KeyScope, count: int) -> float:
        """Check the key again and take ``count`` tokens; returns seconds to wait, or 0."""
        return self._take_tokens(await self._valid_key(credential, required_scope), count)

    async def _valid_key(self, credential: Credential, required_scope: KeyScope) -> CachedKey:
        try:
            cached = await self._cache.find(credential.key_id)
        except KeysUnavailable:
            raise ProblemError(
                "unavailable",
                "The API key can't be verified now: the database does not respond.",
                headers={"Retry-After": "1"},
                applied="no",
            ) from None
        if cached is None or not hmac.compare_digest(
            cached.record.secret_hash, credential.secret_hash
        ):
            raise _invalid("Unknown API key.")
        record, now = cached.record, self._now()
        if record.revoked_at is not None:
            raise _invalid("This key was revoked.")
        if record.expires_at is not None and record.expires_at.timestamp() <= now:
            raise _invalid("This key has expired.")
        if required_scope not in cached.granted:
            raise scope_missing(required_scope, "This route")
        cached.used_at = now
        return cached

    def _take_tokens(self, cached: CachedKey, count: int) -> float:
        own = cached.record.rate_per_s
        rate_per_s = self._limit.rate_per_s if own is None else own
        if not rate_per_s:
            return 0.0
        now_s = self._clock()
        if cached.bucket is None or cached.bucket.rate_per_s != rate_per_s:
            burst = max(1.0, rate_per_s * self._limit.burst_s)
            cached.bucket = TokenBucket(rate_per_s=rate_per_s, burst=burst, now_s=now_s)
        return cached.bucket.take(count, now_s)


def _key_in(headers: Iterable[tuple[bytes, bytes]]) -> Credential:
    """The key in the one Authorization header.

    Raises:
        Problem: key_required, key_invalid. The detail never repeats the header.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        raise ProblemError(
            "key_required",
            "Send an API key: Authorization: Bearer wk_…",
            headers={"WWW-Authenticate": _REALM},
        )
    scheme, _, token = found[0].partition(b" ")
    credential = parse_credential(token.strip()) if scheme.lower() == b"bearer" else None
    if credential is None or len(found) > 1:
        raise _invalid("Send one header, Authorization: Bearer, with the complete API key.")
    return credential


def _invalid(detail: str) -> ProblemError:
    challenge = f'{_REALM}, error="invalid_token"'
    return ProblemError("key_invalid", detail, headers={"WWW-Authenticate": challenge})
