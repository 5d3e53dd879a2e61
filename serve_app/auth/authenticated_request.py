"""A request that was let through: whose it is, and what more it may ask for."""

import asyncio
import math
from typing import Final, Protocol

from starlette.requests import Request

from serve_app.auth.api_key import Credential, KeyScope
from serve_app.auth.cache import CachedKey
from serve_app.http.problems import ProblemError

STATE: Final = "admission"
"""Where the request's state has it."""


class RechecksKeys(Protocol):
    """What lets requests through."""

    async def recheck(self, sent: Credential, needed: KeyScope, count: int) -> float:
        """Judge the key again, for ``count`` more; returns 0, or seconds to wait."""


class AuthenticatedRequest:
    """That a request was let through."""

    __slots__ = ("_gate", "_held", "_needed", "_sent")

    def __init__(
        self, gate: RechecksKeys, held: CachedKey, sent: Credential, needed: KeyScope
    ) -> None:
        self._gate = gate
        self._held = held
        self._sent = sent
        self._needed = needed

    @property
    def key_id(self) -> str:
        return self._sent.key_id

    def charge(self, count: int) -> None:
        """The request turned out to ask for ``count`` things more than one."""
        if self._held.bucket is not None:
            self._held.bucket.charge(count)

    async def continue_stream(self, count: int) -> float:
        """Ask for ``count`` things more; returns 0, or the seconds to wait before asking again.

        Raises:
            Problem: the key isn't good any more.
        """
        return await self._gate.recheck(self._sent, self._needed, count)


def admission_of(request: Request) -> AuthenticatedRequest | None:
    """How the request came in; None where no keys are asked for."""
    state: dict[str, object] = request.scope.get("state") or {}
    admission = state.get(STATE)
    assert admission is None or isinstance(admission, AuthenticatedRequest)
    return admission


def api_key_id_of(request: Request) -> str | None:
    """Id of the key that the request came with, as it stands in the journal."""
    admission = admission_of(request)
    return None if admission is None else admission.key_id


def count_items(request: Request, count: int) -> None:
    """To a key's rate, an item of a batch is a request; the first was counted with the request."""
    admission = admission_of(request)
    if admission is not None:
        admission.charge(count - 1)


async def continue_stream(request: Request, count: int, *, wait_max_s: float) -> None:
    """Slow a stream down to its key's rate, and end it if the key was revoked meanwhile.

    Raises:
        Problem: the key isn't good any more, or the wait is longer than ``wait_max_s``.
    """
    admission = admission_of(request)
    if admission is None:
        return
    while wait_s := await admission.continue_stream(count):
        if wait_s > wait_max_s:
            raise rate_limited(wait_s)
        await asyncio.sleep(wait_s)


def rate_limited(wait_s: float) -> ProblemError:
    """Too much of one key; again after ``wait_s`` seconds."""
    return ProblemError(
        "rate_limited",
        f"Rate limit exceeded; retry after {wait_s:.1f} s.",
        headers={"Retry-After": str(max(1, math.ceil(wait_s)))},
    )
