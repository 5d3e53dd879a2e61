"""Request and response bodies. What the OpenAPI document says of them is made from these classes.

Requests with one command are validated by pydantic-core, strictly: unknown fields, floats and
coercions are refused. Requests with many are validated by `serve_app.http.batch_requests`.
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
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
)
from wallet.currencies import CURRENCY_PATTERN
from wallet.money import SCALE_MAX, AmountError, canonical_amount
from wallet.representation import BalancesView, TransferResultView, WalletView

AMOUNT_HINT = 'send a decimal string such as "10.50" (or a whole number): '


def _canonical(value: str | int) -> str:
    try:
        return canonical_amount(value if isinstance(value, str) else str(value))
    except AmountError as error:
        raise ValueError(str(error)) from error


def _described_by(field: object) -> WithJsonSchema:
    """``field`` is what the batch decoder validates: one description for both."""
    return WithJsonSchema(msgspec.json.schema(field))


Amount = Annotated[
    StrictStr | StrictInt, AfterValidator(_canonical), _described_by(request_fields.Amount)
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


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateWalletBody(_Request):
    """A new wallet, with no money in it. An empty body takes every default."""

    reference_id: ReferenceId | None = Field(
        default=None, description="Unique among all wallets, if given."
    )
    currency: Annotated[str, StringConstraints(pattern=CURRENCY_PATTERN)] | None = Field(
        default=None,
        description="ISO 4217 code, or the code of a custom asset (then `scale` is needed).",
        examples=["USD"],
    )
    scale: Annotated[int, Field(ge=0, le=SCALE_MAX)] | None = Field(
        default=None, description="Decimals of a custom asset. ISO 4217 currencies have their own."
    )
    metadata: Metadata = Field(default_factory=dict)


class CreateTransferBody(_Request):
    """A debit (money INTO the wallet) or a credit (money OUT of it)."""

    amount: Amount
    status: Literal["pending", "completed"] = Field(
        default="pending",
        description="`pending`: complete or revert it later. A pending credit holds its money "
        "at once; a pending debit adds nothing until it completes. `completed`: done at once.",
    )
    reference_id: ReferenceId | None = None
    metadata: Metadata = Field(default_factory=dict)


class SettleTransferBody(_Request):
    """Details of a settlement, all optional."""

    reference_id: ReferenceId | None = Field(
        default=None, description="Replaces the transfer's reference_id, if given."
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Merged into the transfer's metadata, to at most 20 entries; these win.",
    )


class WalletList(msgspec.Struct, frozen=True, kw_only=True):
    """Wallets found, at most one."""

    items: list[WalletView]


class ProblemKind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of problem, explained."""

    type: str
    code: str
    status: int
    title: str
    remedy: Annotated[str, Meta(description="What to do about it.")]


class ProblemKindList(msgspec.Struct, frozen=True, kw_only=True):
    """Every kind of problem that this service answers with."""

    items: list[ProblemKind]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """This process serves."""

    status: Annotated[str, Meta(extra_json_schema={"const": "ok"})]


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the service needs."""

    ready: bool
    detail: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What is ready and what is not."""

    ready: bool
    components: dict[str, Component]


class BatchResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item's result: the transfer, or the problem why not."""

    status: Annotated[int, Meta(description="As the item's own route would have answered.")]
    transfer: TransferResultView | None = None
    problem: ProblemDocument | None = None
    replayed: Annotated[bool | None, Meta(description="Answered before under its own key.")] = None


class WalletBatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """A result an item, in order, and the wallet after all of them."""

    items: list[BatchResult]
    wallet: Annotated[BalancesView | None, Meta(description="null: there is no such wallet.")]


class MultiBatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """A result an item, in order."""

    items: list[BatchResult]


def encoded_already(body: bytes) -> Any:
    """``body`` in the place of the value that it is the JSON of: the encoder copies it."""
    return msgspec.Raw(body)
