"""Fields that single and batch requests share.

The batch decoder validates these types, and the OpenAPI schemas use them for all requests.
`serve_app.http.models` has the same limits for pydantic.
"""

from typing import Annotated, Final

from msgspec import Meta

from wallet.api_limits import (
    IDEMPOTENCY_KEY_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
    VISIBLE_ASCII_PATTERN,
)
from wallet.money import AMOUNT_PATTERN, MINOR_MAX

METADATA_VALUE_PATTERN: Final = r"^[^\x00]*$"

# Python's `$` also matches before a trailing line break; ECMAScript's doesn't.
_VISIBLE: Final = VISIBLE_ASCII_PATTERN.removesuffix("$") + r"\Z"
_TEXT: Final = TEXT_PATTERN.removesuffix("$") + r"\Z"
_METADATA_VALUE: Final = METADATA_VALUE_PATTERN.removesuffix("$") + r"\Z"

_NOT_ZERO: Final = r"^(?!0(\.0+)?$)"

# The pattern is documentation only: `canonical_amount` validates, with better messages.
Amount = Annotated[
    Annotated[
        str, Meta(extra_json_schema={"pattern": _NOT_ZERO + AMOUNT_PATTERN.removeprefix("^")})
    ]
    | Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MINOR_MAX})],
    Meta(
        description="Decimal string with at most as many decimals as the wallet's currency has. A "
        "JSON integer is a number of whole units. JSON floats are rejected. Nothing is rounded.",
        examples=["10.50"],
    ),
]

Limit = Annotated[
    Annotated[str, Meta(extra_json_schema={"pattern": AMOUNT_PATTERN})]
    | Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MINOR_MAX})],
    Meta(description="As an amount; zero is possible.", examples=["100.00"]),
]

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

PendingTransferId = Annotated[
    str,
    Meta(
        description="Id of a pending transfer.",
        examples=["0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e1f"],
        extra_json_schema={"format": "uuid"},
    ),
]
