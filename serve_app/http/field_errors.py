"""Words for what is wrong with a field: what was sent, and what to send instead."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

import msgspec
from pydantic_core import ErrorDetails

from serve_app.http.models import AMOUNT_HINT

_SHOWN_MAX: Final = 40
"""Characters of a refused value that are repeated in the error."""

_UNION_TAGS: Final = frozenset({"str", "int", "[key]"})
_UNKNOWN_MEMBER: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

_VISIBLE: Final = "send visible characters, without control characters or line breaks"
_QUERY_PATTERNS: Final = {
    "cursor": "send the next_cursor of a page",
    "currency": "send 3 to 12 capital letters and digits, a letter first",
    "reference_id": _VISIBLE,
    "reference_id_prefix": _VISIBLE,
}


def shown(value: object) -> str:
    """``value`` as JSON, shortened."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, UnicodeEncodeError):
        text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def unknown(name: str, known: Collection[str], what: str = "field") -> str:
    """A field or query parameter that the route doesn't know."""
    close = get_close_matches(name, known, n=1)
    return f"unknown {what}: did you mean {close[0]}?" if close else f"unknown {what}: remove it"


def from_pydantic(found: ErrorDetails, known: Collection[str]) -> tuple[str, str]:
    """JSON pointer and words for one of pydantic's errors. ``known``: the body's members."""
    location = [str(part) for part in found["loc"]]
    while location and location[-1] in _UNION_TAGS and len(location) > 1:
        location.pop()
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in location)
    name = location[-1] if location else ""
    if found["type"] == "extra_forbidden":
        return pointer, unknown(name, known)
    detail = found["msg"].removeprefix("Value error, ")
    if found["type"] == "missing":
        return pointer, detail
    if name == "amount":
        return pointer, _amount_detail(found["type"], detail)
    if name == "currency" and found["type"] == "string_pattern_mismatch":
        return pointer, _currency_detail(found["input"])
    if found["type"] == "string_pattern_mismatch":
        detail = "send visible characters, without control characters or line breaks"
    return pointer, f"{detail}, not {shown(found['input'])}"


def from_query(found: ErrorDetails) -> tuple[str, str]:
    """Pointer and words for one of pydantic's errors in a query."""
    name = ".".join(str(part) for part in found["loc"] if part != "[key]")
    detail = found["msg"].removeprefix("Value error, ")
    if found["type"] == "missing":
        return f"#query/{name}", detail
    if found["type"] == "string_pattern_mismatch":
        detail = _QUERY_PATTERNS.get(name, _VISIBLE if "." in name else detail)
    return f"#query/{name}", f"{detail}, not {shown(found['input'])}"


def from_msgspec(message: str, known: Collection[str]) -> tuple[str, str]:
    """JSON pointer and words for msgspec's message.

    Its format: ``what - at `$.items[3].amount```, or ``at `key` in `$…metadata```.
    """
    detail, _, place = message.partition(" - at `")
    path = place.rpartition("$")[2].rstrip("`").replace("[...]", "/*")
    pointer = path.replace("[", "/").replace("]", "").replace(".", "/")
    member = _UNKNOWN_MEMBER.fullmatch(detail)
    return pointer, unknown(member[1], known) if member else detail


def _amount_detail(kind: str, detail: str) -> str:
    if kind == "value_error":
        return detail
    return AMOUNT_HINT + "JSON floats, booleans and null are rejected, nothing is rounded"


def _currency_detail(sent: object) -> str:
    if isinstance(sent, str) and sent != sent.upper():
        return f"currencies are upper case: {shown(sent.upper())}, not {shown(sent)}"
    return f"send 3 to 12 capital letters and digits, a letter first, not {shown(sent)}"
