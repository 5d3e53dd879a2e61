"""Cost of authentication: CPU time of a request with and without the authenticator.

    python -m bench.auth_overhead

In one process, without HTTP: the same route, the same request, with a cached API key.
Rounds of both alternate, so that a busy machine slows both down; medians are reported.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from runtime.settings import Settings
from serve_app.asgi.endpoint import as_asgi
from serve_app.auth.api_key import NewApiKey, generate
from serve_app.auth.authenticator import Authenticator, RateLimit
from serve_app.auth.cache import CacheLimits, KeyCache
from serve_app.auth.store import ApiKeyRecord
from serve_app.dependencies import Dependencies

_ROUNDS: Final = 20
_REQUESTS: Final = 5_000


class _SingleKeySource:
    """Holds the one API key of this measurement."""

    def __init__(self, key: NewApiKey) -> None:
        self._record = ApiKeyRecord(
            key_id=key.key_id,
            name="bench",
            secret_hash=key.secret_hash,
            scopes=("wallets:write",),
            created_at=datetime.now(UTC),
        )

    async def find(self, key_ids: Sequence[str]) -> dict[str, ApiKeyRecord]:
        return dict.fromkeys(key_ids, self._record)


class _App:
    """The parts of an application that a route needs."""

    def __init__(self, authenticator: Authenticator | None) -> None:
        nothing: Any = None
        self.state = self
        self.services = Dependencies(
            settings=Settings(),
            dispatcher=nothing,
            queries=nothing,
            probes={},
            authenticator=authenticator,
        )


async def _answer(_request: Request) -> Response:
    return Response(b"{}")


async def _discard(_message: Any) -> None:
    return None


async def _seconds(app: _App, headers: list[tuple[bytes, bytes]]) -> float:
    """CPU seconds per request, over one round."""
    route = as_asgi(_answer, "wallets:write")
    started = time.process_time()
    for _ in range(_REQUESTS):
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "app": app}
        await route(scope, _discard, _discard)  # type: ignore[arg-type]  # a dict is a scope
    return (time.process_time() - started) / _REQUESTS


async def _measure(rate_per_s: float) -> tuple[float, float]:
    key = generate()
    clock = asyncio.get_running_loop().time
    cache = KeyCache(_SingleKeySource(key), CacheLimits(staleness_s=3.0, keys_max=10), clock=clock)
    authenticator = Authenticator(cache, RateLimit(rate_per_s=rate_per_s, burst_s=2.0), clock=clock)
    headers = [
        (b"host", b"localhost:8089"),
        (b"content-type", b"application/json"),
        (b"content-length", b"42"),
        (b"authorization", f"Bearer {key.text}".encode()),
        (b"user-agent", b"bench"),
    ]
    rounds = [
        (await _seconds(_App(None), headers), await _seconds(_App(authenticator), headers))
        for _ in range(_ROUNDS)
    ]
    return median(off for off, _ in rounds), median(on for _, on in rounds)


def main() -> None:
    for what, rate_per_s in (("no rate limit", 0.0), ("rate limit", 1e9)):
        off, on = asyncio.run(_measure(rate_per_s))
        print(
            f"{what}: {off * 1e6:.1f} µs without authentication, {on * 1e6:.1f} µs with it: "
            f"{(on - off) * 1e6:.1f} µs per request"
        )


if __name__ == "__main__":
    main()
