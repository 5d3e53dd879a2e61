"""Rejects JSON objects with duplicate members: ``{"amount": "1", "amount": "1000"}``.

Both JSON decoders silently take the last one. The intent is ambiguous, and a proxy that checked the
first value has checked another transfer than the one created.

A colon in JSON either follows a member name or is part of a string. So the decoded value implies
the number of colons, and a body without duplicates has exactly that many; counting bytes costs a
fraction of decoding. If the counts differ (a null that equals a missing member, an escaped colon),
the body is decoded again with all members.
"""

import json
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from serve_app.http.problems import FieldError, ProblemError, validation_problem

_ESCAPED_COLON: Final = b"\\u003"
"""Prefix of the escapes of a colon, in upper or lower case: decoded, but not counted."""

_NONE: Final[dict[str, str | None]] = {}

_encode: Final = msgspec.json.Encoder().encode


def require_unique_members(body: bytes, decoded: BaseModel | msgspec.Struct) -> None:
    """Reject duplicate members. ``decoded``: the decoded ``body``; structs omit defaults.

    Raises:
        Problem: validation_error, with a pointer to the duplicate member.
    """
    colons = body.count(b":")
    if isinstance(decoded, BaseModel):
        metadata: dict[str, str | None] = getattr(decoded, "metadata", None) or _NONE
        accounted = len(decoded.model_fields_set) + len(metadata)
        if accounted == colons:
            return
        accounted += _colons_in_texts(getattr(decoded, "reference_id", None), metadata)
    else:
        accounted = _encode(decoded).count(b":")
    if accounted != colons or _ESCAPED_COLON in body:
        _search(body)


def _colons_in_texts(reference_id: str | None, metadata: dict[str, str | None]) -> int:
    """Colons in free-text fields; other fields can't contain any."""
    count = reference_id.count(":") if reference_id else 0
    for name, value in metadata.items():
        count += name.count(":") + (value or "").count(":")
    return count


class _Members(list[tuple[str, Any]]):
    """All members of an object, in order, with duplicates."""


_decode: Final = json.JSONDecoder(object_pairs_hook=_Members, parse_int=str).decode


def _search(body: bytes) -> None:
    try:
        pointer = _first_repeated(_decode(body.decode()), "")
    except ValueError as error:  # Accepted by one decoder, rejected by the other.
        raise ProblemError("malformed_json", f"{error}.") from None
    if pointer is not None:
        detail = "this field was sent twice: send it once"
        raise validation_problem(FieldError(pointer=pointer, detail=detail))


def _first_repeated(value: Any, pointer: str) -> str | None:
    if isinstance(value, _Members):
        seen: set[str] = set()
        for name, inner in value:
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            if name in seen:
                return place
            seen.add(name)
            found = _first_repeated(inner, place)
            if found is not None:
                return found
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found = _first_repeated(inner, f"{pointer}/{index}")
            if found is not None:
                return found
    return None
