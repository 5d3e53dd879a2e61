"""A request's headers by name, from one pass over them.

Starlette's `Headers` encodes the name and searches the list at each look-up.
"""

from typing import Final

from starlette.types import Scope

_HEADERS: Final = "headers"
"""Key of the headers in the request's state."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Values by name in lower case: the first one of a header that was sent more than once."""
    state = scope.setdefault("state", {})
    known: dict[bytes, bytes] | None = state.get(_HEADERS)
    if known is None:
        known = state[_HEADERS] = dict(reversed(scope["headers"]))
    return known


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first value of the header ``name``, given in lower case."""
    value = headers_of(scope).get(name)
    return None if value is None else value.decode("latin-1")
