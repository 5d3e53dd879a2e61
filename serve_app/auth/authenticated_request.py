"""An authenticated request: its API key, and the rate limit of its batch items."""

import asyncio
import math
from typing import Final, Protocol

from starlette.requests import Request

from serve_app.auth.api_key import Credential, KeyScope
from serve_app.auth.cache import CachedKey
from serve_app.http.problems import ProblemError

STATE: Final = "admission"
"""Key in the request's state."""


class RechecksKeys(Protocol):
    """Checks the key of a long request again."""

    async def recheck(self, credential: Credential, required_scope: KeyScope, count: int) -> float:
        """Check the key again and take ``count`` tokens; returns 0, or seconds to wait."""


class AuthenticatedRequest:
    """A request whose API key was accepted."""

    __slots__ = ("_authenticator", "_cached", "_credential", "_required_scope")

    def __init__(
        self,
        authenticator: RechecksKeys,
        cached: CachedKey,
        credential: Credential,
        required_scope: KeyScope,
    ) -> None:
        self._authenticator = authenticator
        self._cached = cached
        self._credential = credential
        self._required_scope = required_scope

    @property
    def key_id(self) -> str:
        return self._credential.key_id

    def require(self, scope: KeyScope) -> None:
        """Require another scope than the route's.

        Raises:
            Problem: scope_missing.
        """
        if scope not in self._cached.granted:
            raise scope_missing(scope, "This request")

    def charge(self, count: int) -> None:
        """Charge ``count`` more tokens: the request has that many more items."""
        if self._cached.bucket is not None:
            self._cached.bucket.charge(count)

    async def continue_stream(self, count: int) -> float:
        """Take ``count`` tokens; returns 0, or the seconds to wait before trying again.

        Raises:
            Problem: the key is no longer valid.
        """
        return await self._authenticator.recheck(self._credential, self._required_scope, count)


def admission_of(request: Request) -> AuthenticatedRequest | None:
    """The request's authentication; None if authentication is off."""
    state: dict[str, object] = request.scope.get("state") or {}
    authenticated = state.get(STATE)
    assert authenticated is None or isinstance(authenticated, AuthenticatedRequest)
    return authenticated


def api_key_id_of(request: Request) -> str | None:
    """Id of the request's API key, as recorded in the journal."""
    authenticated = admission_of(request)
    return None if authenticated is None else authenticated.key_id


def count_items(request: Request, count: int) -> None:
    """Charge batch items to the key's rate limit; the request itself paid for the first."""
    authenticated = admission_of(request)
    if authenticated is not None:
        authenticated.charge(count - 1)


async def continue_stream(request: Request, count: int, *, wait_max_s: float) -> None:
    """Throttle a stream to its key's rate limit; end it if the key was revoked meanwhile.

    Raises:
        Problem: the key is no longer valid, or the wait is longer than ``wait_max_s``.
    """
    authenticated = admission_of(request)
    if authenticated is None:
        return
    while wait_s := await authenticated.continue_stream(count):
        if wait_s > wait_max_s:
            raise rate_limited(wait_s)
        await asyncio.sleep(wait_s)


def require_scope(request: Request, scope: KeyScope) -> None:
    """Require a scope that only some requests of a route need.

    Raises:
        Problem: scope_missing.
    """
    authenticated = admission_of(request)
    if authenticated is not None:
        authenticated.require(scope)


def scope_missing(scope: KeyScope, what: str) -> ProblemError:
    """``what`` needs a key with ``scope``, and this key doesn't have it."""
    return ProblemError(
        "scope_missing",
        f"{what} needs an API key with the scope {scope}.",
        headers={
            "WWW-Authenticate": f'Bearer realm="wallet", error="insufficient_scope", '
            f'scope="{scope}"'
        },
    )


def rate_limited(wait_s: float) -> ProblemError:
    """The key exceeded its rate limit; retry after ``wait_s`` seconds."""
    return ProblemError(
        "rate_limited",
        f"Rate limit exceeded; retry after {wait_s:.1f} s.",
        headers={"Retry-After": str(max(1, math.ceil(wait_s)))},
    )
