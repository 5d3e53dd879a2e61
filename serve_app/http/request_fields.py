"""Fields that single and batch requests share.

The batch decoder validates these types, and the OpenAPI schemas use them for all requests.
`serve_app.http.models` has the same limits for pydantic.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta

from wallet.api_limits import (
    EXPIRES_IN_S_MAX,
    IDEMPOTENCY_KEY_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
    VISIBLE_ASCII_PATTERN,
)

METADATA_VALUE_PATTERN: Final = r"^[^\x00]*$"

# Python's `$` also matches before a trailing line break; ECMAScript's doesn't.
_VISIBLE: Final = VISIBLE_ASCII_PATTERN.removesuffix("$") + r"\Z"
_TEXT: Final = TEXT_PATTERN.removesuffix("$") + r"\Z"
_METADATA_VALUE: Final = METADATA_VALUE_PATTERN.removesuffix("$") + r"\Z"

Amount = str | int
"""`canonical_amount` validates, with better messages than a pattern has. The schema is `Amount` in
`serve_app.openapi.shared_components`."""

ItemKey = Annotated[str, Meta(min_length=1, max_length=IDEMPOTENCY_KEY_MAX, pattern=_VISIBLE)]

ReferenceId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=REFERENCE_ID_MAX,
        pattern=_TEXT,
        description="Optional reference of yours.",
        examples=["order-1042"],
    ),
]

Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=METADATA_KEY_MAX, pattern=_TEXT)],
        Annotated[str, Meta(max_length=METADATA_VALUE_MAX, pattern=_METADATA_VALUE)],
    ],
    Meta(
        max_length=METADATA_ENTRIES_MAX,
        description="Your own key-value pairs, stored and returned unchanged.",
        examples=[{"channel": "web"}],
    ),
]

MetadataPatch = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=METADATA_KEY_MAX, pattern=_TEXT)],
        Annotated[str, Meta(max_length=METADATA_VALUE_MAX, pattern=_METADATA_VALUE)] | None,
    ],
    Meta(
        max_length=METADATA_ENTRIES_MAX,
        description="Entries to set; null removes an entry.",
        examples=[{"channel": "web", "campaign": None}],
    ),
]

ExpiresAt = Annotated[
    str,
    Meta(
        description="When the pending transfer settles itself: a time in RFC 3339 with an offset. "
        "Not with `expires_in_s`.",
        examples=["2026-03-01T12:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
"""`serve_app.http.expiry` validates, with better messages than a type has."""

ExpiresInS = Annotated[
    int,
    Meta(
        ge=1,
        le=EXPIRES_IN_S_MAX,
        description="In how many seconds the pending transfer settles itself, by the service's "
        "clock. The service may allow less than the maximum.",
        examples=[86400],
    ),
]

OnExpiry = Annotated[
    Literal["fail", "complete"],
    Meta(
        description="What becomes of it when it expires. `fail` (if left out): it fails, and what "
        "is held is released. `complete`: it completes, as a scheduled transfer does.",
    ),
]

PendingTransferId = Annotated[
    str,
    Meta(
        description="Id of a pending transfer.",
        examples=["0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e1f"],
        extra_json_schema={"format": "uuid"},
    ),
]

RefundedTransferId = Annotated[
    str,
    Meta(
        description="Id of a transfer that is completed, as a whole or in part.",
        examples=["0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e1f"],
        extra_json_schema={"format": "uuid"},
    ),
]
