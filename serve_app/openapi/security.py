"""API keys in the OpenAPI document."""

from typing import Final, Literal

Auth = Literal["required", "optional", "off"]
"""Whether a service requires API keys. ``optional``: the document is about services in general."""

SCHEME: Final = "apiKey"

PROBLEMS: Final = ("key_required", "key_invalid", "scope_missing", "rate_limited")
"""Problems of all routes that require an API key."""

AUTH_REQUIRED: Final = """
Routes under `/v1/` require an API key: `Authorization: Bearer wk_…`. Reads need the scope
`wallets:read`, writes `wallets:write`; freezing, closing and overdrafts need `admin`, which
includes both. Health, problems and this page need no API key.
"""

AUTH_OPTIONAL: Final = (
    AUTH_REQUIRED
    + """A service with `WALLET_AUTH=off`, such as one that `make up` starts, requires none at all.
"""
)

AUTH_DISABLED: Final = """
Authentication is off (`WALLET_AUTH=off`): no API key is needed.
"""

UNAUTHENTICATED_WARNING: Final = """
> **Warning: authentication is disabled and the service is reachable from other machines.**
> Anyone who can connect to this port can move money. Set `WALLET_AUTH=required`, unless another
> layer authenticates clients.
"""

SECURITY_SCHEMES: Final = {
    SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "wk_<id>_<secret>",
        "description": "An API key, created with `wallet keys create` and shown once. Reads need "
        "the scope wallets:read, writes wallets:write; admin includes both.",
    }
}

CHALLENGE: Final = {
    "description": "`Bearer` challenge with the error (RFC 6750).",
    "schema": {"type": "string"},
}
"""The WWW-Authenticate header."""


def requirements(auth: Auth, scope: str) -> list[dict[str, list[str]]]:
    """The security requirements of an operation that needs ``scope``; any one of them is enough."""
    assert auth != "off", "an operation without requirements does not list them"
    by_key = {SCHEME: [scope]}
    return [by_key] if auth == "required" else [by_key, {}]
