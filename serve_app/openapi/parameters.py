"""Query parameters of lists, and of reads that look back."""

from typing import Any, Final

from serve_app.http.times import TIME_PATTERN
from serve_app.openapi.route_spec import query
from serve_app.routes.list_queries import ENTRY_PATTERN, METADATA
from wallet.api_limits import (
    METADATA_ENTRIES_MAX,
    METADATA_VALUE_MAX,
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
    VERSION_MAX,
)

Json = dict[str, Any]


def version_schema(least: int) -> Json:
    """Of a parameter that is a wallet's version."""
    return {"type": "integer", "format": "int64", "minimum": least, "maximum": VERSION_MAX}


def time(name: str, description: str) -> Json:
    """A query parameter that is a time."""
    form = f"{description} RFC 3339, such as `2026-01-02T03:04:05Z`."
    return query(name, form, {"type": "string", "pattern": TIME_PATTERN})


REFERENCE_SCHEMA: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": REFERENCE_ID_MAX,
    "pattern": TEXT_PATTERN,
}

CREATED: Final = (
    time("created_from", "Only what was created at this time or later."),
    time("created_before", "Only what was created before this time."),
)

METADATA_FILTER: Final[Json] = {
    "name": METADATA,
    "in": "query",
    "required": False,
    "style": "form",
    "explode": True,
    "description": "`metadata.KEY=value`: only what has this entry with this value. Several must "
    "all be there.",
    "schema": {
        "type": "object",
        "maxProperties": METADATA_ENTRIES_MAX,
        "propertyNames": {"pattern": r"^metadata\.[^\x00-\x1f\x7f]{1,64}$"},
        "additionalProperties": {
            "type": "string",
            "maxLength": METADATA_VALUE_MAX,
            "pattern": ENTRY_PATTERN,
        },
    },
}

PAST: Final = (
    query("version", "The wallet as it was at this version.", version_schema(1)),
    time("at", "The wallet after its last event at or before this time. Not with `version`."),
)

PAGE_LIMIT: Final = query(
    "limit",
    "Maximum number of items per page.",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": PAGE_LIMIT_MAX,
        "default": PAGE_LIMIT_DEFAULT,
    },
)
