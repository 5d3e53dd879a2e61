"""Cross-origin requests (CORS): which pages may call the API from a browser. None by default."""

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

_METHODS: Final = ("GET", "HEAD", "PATCH", "POST")
_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "X-Request-Id",
    "X-Request-Timeout-Ms",
)
_RESPONSE_HEADERS: Final = (
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Retry-After",
    "Wallet-History",
    "WWW-Authenticate",
    "X-Request-Id",
)
_PREFLIGHT_CACHE_S: Final = 600


def origins_of(setting: str) -> list[str]:
    """The origins in WALLET_CORS_ORIGINS, which are separated by commas."""
    return [origin for part in setting.split(",") if (origin := part.strip().rstrip("/"))]


def allow_origins(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """``app``, which answers preflight requests and lets pages of ``origins`` read responses."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_RESPONSE_HEADERS,
        max_age=_PREFLIGHT_CACHE_S,
    )


def is_cross_origin(scope: Scope) -> bool:
    """Whether a browser says which page the request comes from."""
    return any(name == b"origin" for name, _ in scope["headers"])
