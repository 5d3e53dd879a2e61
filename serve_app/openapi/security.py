"""What the API's description says of keys."""

from typing import Final

SCHEME: Final = "apiKey"

PROBLEMS: Final = ("key_required", "key_invalid", "scope_missing", "rate_limited")
"""Of every route that asks for a key."""

AUTH_REQUIRED: Final = """
Routes under `/v1/` ask for an API key: `Authorization: Bearer wk_…`. Reading needs the scope
`wallets:read`, writing `wallets:write`; `admin` is for everything. Health, problems and this page
are for everybody.
"""

AUTH_DISABLED: Final = """
This service runs with `WALLET_AUTH=off`: it asks for no keys.
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
        "description": "An API key, made with `wallet keys create` and shown once. Reading needs "
        "the scope wallets:read, writing wallets:write; admin is for everything.",
    }
}

CHALLENGE: Final = {
    "description": "`Bearer`, with what is wrong with the key (RFC 6750).",
    "schema": {"type": "string"},
}
"""The header WWW-Authenticate."""
