"""Checks that apply to requests of every route.

Input that would change the meaning of a request is never ignored. Unknown query parameters,
repeated headers that allow one value, preconditions that the route doesn't support, and encoded
bodies are rejected before the body is read.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Scope

from serve_app.http.field_errors import unknown
from serve_app.http.headers import headers_of
from serve_app.http.problems import FieldError, ProblemError, validation_problem

_SINGLE: Final = frozenset({b"content-type", b"idempotency-key", b"x-request-timeout-ms"})
"""Headers that allow one value. (The authenticator checks Authorization.)"""

_PRECONDITIONS: Final = frozenset({b"if-match", b"if-none-match", b"if-unmodified-since"})
_ENCODING: Final = b"content-encoding"
_RARE: Final = _PRECONDITIONS | {_ENCODING}

_QUERY: Final = "query"
"""Key of the parsed query in the request's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The query parameters of a route, and the preconditions that it rejects."""

    query: frozenset[str] = frozenset()
    """Those that end in a dot are prefixes."""
    refused_preconditions: frozenset[bytes] = frozenset()
    """Names in lower case."""

    @classmethod
    def of_read(cls, *, query: frozenset[str], headers: frozenset[str]) -> "Allowed":
        """Reads reject If-Match only: without an ETag or a date, the other two always hold."""
        return cls(query=query, refused_preconditions=frozenset({b"if-match"}) - _raw(headers))

    @classmethod
    def of_write(cls, *, query: frozenset[str], headers: frozenset[str]) -> "Allowed":
        """Writes reject all preconditions that they don't support."""
        return cls(query=query, refused_preconditions=_PRECONDITIONS - _raw(headers))


def _raw(names: frozenset[str]) -> frozenset[bytes]:
    return frozenset(name.lower().encode() for name in names)


NOTHING: Final = Allowed.of_write(query=frozenset(), headers=frozenset())


def check_request(scope: Scope, allowed: Allowed) -> None:
    """Reject input that the route would ignore.

    Raises:
        Problem: validation_error, unsupported_content_encoding.
    """
    if scope["query_string"]:
        scope.setdefault("state", {})[_QUERY] = _checked_query(scope["query_string"], allowed.query)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    by_name = headers_of(scope)
    if len(by_name) != len(headers) or not _RARE.isdisjoint(by_name):
        _check_headers(headers, allowed)


def query_of(request: Request) -> dict[str, str]:
    """The query parameters: each is known to the route and sent once."""
    state: dict[str, dict[str, str]] = request.scope.get("state") or {}
    return state.get(_QUERY, {})


def _checked_query(sent: bytes, known: frozenset[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(sent.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise validation_problem(FieldError(pointer="#query", detail="send UTF-8")) from None
    found = dict(pairs)
    if not found.keys() <= known:
        prefixes = tuple(name for name in known if name.endswith("."))
        strange = [name for name in found.keys() - known if not name.startswith(prefixes)]
        if strange:
            raise validation_problem(
                *(_query_error(name, unknown(name, known, "parameter")) for name in strange)
            )
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise validation_problem(
            *(_query_error(name, "send it once") for name in found if names.count(name) > 1)
        )
    return found


def _query_error(name: str, detail: str) -> FieldError:
    return FieldError(pointer=f"#query/{name}", detail=detail)


def _check_headers(headers: list[tuple[bytes, bytes]], allowed: Allowed) -> None:
    seen: set[bytes] = set()
    for name, value in headers:
        if name in _SINGLE:
            if name in seen:
                raise _header_problem(name, "send it once")
            seen.add(name)
        elif name in allowed.refused_preconditions:
            raise _header_problem(name, "this route does not support it: remove it")
        elif name == _ENCODING and value.strip().lower() not in (b"identity", b""):
            raise ProblemError(
                "unsupported_content_encoding",
                f"Send the body as it is, not encoded as {value.decode('latin-1')!r}.",
                headers={"Accept-Encoding": "identity"},
            )


def _header_problem(name: bytes, detail: str) -> ProblemError:
    pointer = f"#header/{name.decode().title()}"
    return validation_problem(FieldError(pointer=pointer, detail=detail))
