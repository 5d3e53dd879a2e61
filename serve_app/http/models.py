"""Request and response bodies. The OpenAPI schemas are generated from these classes.

Requests with one command are validated by pydantic-core, strictly: unknown fields, floats and
coercions are rejected. Batch requests are validated by `serve_app.http.batch_requests`.
Responses are encoded from structs: those here, those of wallets and transfers
(`wallet.representation`), and problem documents (`serve_app.http.problems`).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    StringConstraints,
    WithJsonSchema,
)

from serve_app.http import request_fields
from serve_app.http.problems import ProblemDocument
from serve_app.http.request_fields import METADATA_VALUE_PATTERN
from wallet.api_limits import (
    EXPIRES_IN_S_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
)
from wallet.currencies import CURRENCY_PATTERN
from wallet.money import SCALE_MAX, AmountError, canonical_amount, canonical_limit
from wallet.representation import BalancesView, TransferResultView, WalletView

AMOUNT_HINT = 'send a decimal string such as "10.50" (or a whole number): '


def _canonical(value: str | int) -> str:
    try:
        return canonical_amount(value if isinstance(value, str) else str(value))
    except AmountError as error:
        raise ValueError(str(error)) from error


def _canonical_limit(value: str | int) -> str:
    try:
        return canonical_limit(value if isinstance(value, str) else str(value))
    except AmountError as error:
        raise ValueError(str(error)) from error


def _described_by(field: object) -> WithJsonSchema:
    """Use the schema of ``field``, which the batch decoder validates, for both."""
    return WithJsonSchema(msgspec.json.schema(field))


Amount = Annotated[StrictStr | StrictInt, AfterValidator(_canonical)]

Limit = Annotated[StrictStr | StrictInt, AfterValidator(_canonical_limit)]

Reason = Annotated[
    str, StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN)
]

ReferenceId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN),
    _described_by(request_fields.ReferenceId),
]

Metadata = Annotated[
    dict[
        Annotated[
            str, StringConstraints(min_length=1, max_length=METADATA_KEY_MAX, pattern=TEXT_PATTERN)
        ],
        Annotated[
            str, StringConstraints(max_length=METADATA_VALUE_MAX, pattern=METADATA_VALUE_PATTERN)
        ],
    ],
    Field(max_length=METADATA_ENTRIES_MAX),
    _described_by(request_fields.Metadata),
]


MetadataPatch = Annotated[
    dict[
        Annotated[
            str, StringConstraints(min_length=1, max_length=METADATA_KEY_MAX, pattern=TEXT_PATTERN)
        ],
        Annotated[
            str, StringConstraints(max_length=METADATA_VALUE_MAX, pattern=METADATA_VALUE_PATTERN)
        ]
        | None,
    ],
    Field(max_length=METADATA_ENTRIES_MAX),
]


ExpiresAt = Annotated[str, _described_by(request_fields.ExpiresAt)]

ExpiresInS = Annotated[
    int, Field(ge=1, le=EXPIRES_IN_S_MAX), _described_by(request_fields.ExpiresInS)
]

OnExpiry = Annotated[Literal["fail", "complete"], _described_by(request_fields.OnExpiry)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateWalletBody(_Request):
    """A new, empty wallet. An empty body uses all defaults."""

    reference_id: ReferenceId | None = Field(
        default=None, description="Optional reference of yours, unique among all wallets."
    )
    currency: Annotated[str, StringConstraints(pattern=CURRENCY_PATTERN)] | None = Field(
        default=None,
        description="ISO 4217 code, or the code of a custom asset (then `scale` is required).",
        examples=["USD"],
    )
    scale: Annotated[int, Field(ge=0, le=SCALE_MAX)] | None = Field(
        default=None,
        description="Number of decimals of a custom asset. ISO 4217 currencies define their own.",
    )
    metadata: Metadata = Field(default_factory=dict)
    overdraft_limit: Limit = Field(
        default="0",
        description="How far below zero the balance may go. Needs the scope `admin`.",
    )


class UpdateWalletBody(_Request):
    """A merge patch (RFC 7396): a member that is missing stays as it is."""

    metadata: MetadataPatch | None = Field(
        default_factory=dict,
        description="Entries to set. null for an entry removes it; null for all of it, all.",
    )
    overdraft_limit: Limit | None = Field(
        default=None,
        description="How far below zero the balance may go; never less than is used. null: not at "
        "all. Needs the scope `admin`.",
    )


class ControlBody(_Request):
    """Why a wallet is unfrozen or closed."""

    reason: Reason | None = Field(default=None, description="For the journal and the event.")


class FreezeBody(ControlBody):
    """Which transfers stop, and why."""

    direction: Literal["both", "debit", "credit"] = Field(
        default="both",
        description="`debit`: money INTO the wallet stops. `credit`: money OUT of it stops.",
    )


class CreateTransferBody(_Request):
    """A debit (money INTO the wallet) or a credit (money OUT of it)."""

    amount: Amount
    status: Literal["pending", "completed"] = "pending"
    reference_id: ReferenceId | None = None
    metadata: Metadata = Field(default_factory=dict)
    # None if left out. Unlike that of older fields, their null is refused.
    expires_at: ExpiresAt = None  # type: ignore[assignment]
    expires_in_s: ExpiresInS = None  # type: ignore[assignment]
    on_expiry: OnExpiry = None  # type: ignore[assignment]


class RefundTransferBody(_Request):
    """How much to refund, and optional details of the refund."""

    # None if left out, as below.
    amount: Amount = Field(  # type: ignore[assignment]
        default=None,
        description="How much to refund. Left out: all that can still be refunded.",
    )
    status: Literal["pending", "completed"] = Field(
        default="completed",
        description="`pending`: the refund is a hold, to be completed or reverted later.",
    )
    reference_id: ReferenceId | None = None
    metadata: Metadata = Field(default_factory=dict)
    expires_at: ExpiresAt = None  # type: ignore[assignment]
    expires_in_s: ExpiresInS = None  # type: ignore[assignment]
    on_expiry: OnExpiry = None  # type: ignore[assignment]


class SettleTransferBody(_Request):
    """Optional details of a settlement."""

    reference_id: ReferenceId | None = Field(
        default=None, description="Replaces the transfer's reference_id, if given."
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Merged into the transfer's metadata (at most 20 entries) and overrides it.",
    )


class CompleteTransferBody(SettleTransferBody):
    """How much to complete, and optional details."""

    amount: Amount = Field(  # type: ignore[assignment]
        default=None,
        description="How much of it to complete. Left out: all that is left.",
    )
    final: bool = Field(
        default=True,
        description="`false`: what is left stays held. Needs `amount` and an Idempotency-Key, "
        "because a repetition would complete twice.",
    )


class WalletList(msgspec.Struct, frozen=True, kw_only=True):
    """Wallets, newest first."""

    items: list[WalletView]
    next_cursor: Annotated[
        str | None, Meta(description="Pass as `cursor` for the next page; null on the last page.")
    ]


class ProblemKind(msgspec.Struct, frozen=True, kw_only=True):
    """Explanation of a problem type."""

    type: str
    code: str
    status: int
    title: str
    remedy: Annotated[str, Meta(description="What to do.")]


class ProblemKindList(msgspec.Struct, frozen=True, kw_only=True):
    """All problem types of this service."""

    items: list[ProblemKind]


class ServiceLinks(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go from here."""

    docs: str
    openapi: str
    openapi_3_0: Annotated[str, Meta(description="OpenAPI 3.0, for generators without 3.1.")]
    problems: str
    health: str
    readiness: str
    stream: Annotated[str, Meta(description="JetStream stream with all events.")]
    stream_server: Annotated[
        str | None, Meta(description="NATS server; null where API keys are required.")
    ]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer should send requests here."""

    status: Annotated[str, Meta(extra_json_schema={"const": "ok"})]


class NotHealthy(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer should use another node."""

    status: Annotated[str, Meta(description="The reason.")]


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """State of one component."""

    ready: bool
    detail: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Readiness of the service and of each component."""

    ready: bool
    components: dict[str, Component]


class BatchResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of one item: the transfer, or the problem."""

    status: Annotated[int, Meta(description="HTTP status that a single request would get.")]
    transfer: TransferResultView | None = None
    problem: ProblemDocument | None = None
    replayed: Annotated[
        bool | None, Meta(description="`true`: replayed under the item's idempotency key.")
    ] = None


class WalletBatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """One result per item, in order, and the wallet's balances after the batch."""

    items: list[BatchResult]
    wallet: Annotated[BalancesView | None, Meta(description="null: the wallet doesn't exist.")]


class MultiBatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """One result per item, in order."""

    items: list[BatchResult]


def encoded_already(body: bytes) -> Any:
    """Already encoded JSON in place of a value: the encoder copies it."""
    return msgspec.Raw(body)
