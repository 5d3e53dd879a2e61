"""Request and response bodies: what is validated, and what /docs shows.

Requests are validated by pydantic-core, strictly: unknown fields, floats and coercions are
refused. Response models only describe; answers are encoded by `wallet.representation`. So do the
models of batches; those are validated by `serve_app.batch_items`.
"""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

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

from wallet.contract import (
    IDEMPOTENCY_KEY_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
    VISIBLE_ASCII_PATTERN,
)
from wallet.currencies import CURRENCY_PATTERN
from wallet.money import AMOUNT_PATTERN, MINOR_MAX, SCALE_MAX, AmountError, canonical_amount
from wallet.settings import Settings

BATCH_ITEMS_MAX: Final[int] = Settings.model_fields["batch_items_max"].default
MULTI_BATCH_ITEMS_MAX: Final[int] = Settings.model_fields["multi_batch_items_max"].default

AMOUNT_HINT = 'send a decimal string such as "10.50" (or a whole number): '


def _canonical(value: str | int) -> str:
    try:
        return canonical_amount(value if isinstance(value, str) else str(value))
    except AmountError as error:
        raise ValueError(str(error)) from error


_NOT_ZERO = r"^(?!0(\.0+)?$)"

Amount = Annotated[
    StrictStr | StrictInt,
    AfterValidator(_canonical),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _NOT_ZERO + AMOUNT_PATTERN.removeprefix("^")},
                {"type": "integer", "minimum": 1, "maximum": MINOR_MAX},
            ],
            "description": "Decimal string with at most as many decimals as the wallet's "
            "currency has; a JSON integer counts whole units. Never a JSON float. "
            "Nothing is rounded.",
            "examples": ["10.50"],
        }
    ),
]

Text = Annotated[str, StringConstraints(pattern=TEXT_PATTERN)]

ReferenceId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN),
    Field(description="A reference of yours.", examples=["order-1042"]),
]

Metadata = Annotated[
    dict[
        Annotated[
            str, StringConstraints(min_length=1, max_length=METADATA_KEY_MAX, pattern=TEXT_PATTERN)
        ],
        Annotated[str, StringConstraints(max_length=METADATA_VALUE_MAX, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=METADATA_ENTRIES_MAX),
    # Pydantic would write the keys' pattern as patternProperties, which lets every other key pass.
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": METADATA_ENTRIES_MAX,
            "propertyNames": {
                "minLength": 1,
                "maxLength": METADATA_KEY_MAX,
                "pattern": TEXT_PATTERN,
            },
            "additionalProperties": {
                "type": "string",
                "maxLength": METADATA_VALUE_MAX,
                "pattern": r"^[^\x00]*$",
            },
            "description": "Strings of yours, kept and returned as they are.",
            "examples": [{"channel": "web"}],
        }
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateWallet(_Request):
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


class CreateTransfer(_Request):
    """A debit (money INTO the wallet) or a credit (money OUT of it)."""

    amount: Amount
    status: Literal["pending", "completed"] = Field(
        default="pending",
        description="`pending`: complete or revert it later. A pending credit holds its money "
        "at once; a pending debit adds nothing until it completes. `completed`: done at once.",
    )
    reference_id: ReferenceId | None = None
    metadata: Metadata = Field(default_factory=dict)


class SettleTransfer(_Request):
    """Details of a settlement, all optional."""

    reference_id: ReferenceId | None = Field(
        default=None, description="Replaces the transfer's reference_id, if given."
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Merged into the transfer's metadata, to at most 20 entries; these win.",
    )


class _BatchItem(_Request):
    idempotency_key: (
        Annotated[
            str,
            StringConstraints(
                min_length=1, max_length=IDEMPOTENCY_KEY_MAX, pattern=VISIBLE_ASCII_PATTERN
            ),
        ]
        | None
    ) = Field(default=None, description="This item's own key.")
    reference_id: ReferenceId | None = None
    metadata: Metadata = Field(default_factory=dict)


PendingTransferId = Annotated[
    UUID,
    Field(
        description="Id of a pending transfer.", examples=["0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e1f"]
    ),
]


class BatchTransfer(_BatchItem):
    """An item that makes a transfer: `debit` puts money INTO the wallet, `credit` takes it OUT."""

    type: Literal["debit", "credit"]
    amount: Amount
    status: Literal["pending", "completed"] = "pending"


class BatchCompletion(_BatchItem):
    """An item that completes a pending transfer."""

    complete: PendingTransferId


class BatchReversal(_BatchItem):
    """An item that reverts a pending transfer."""

    revert: PendingTransferId


class _OfWallet(_Request):
    wallet_id: str = Field(description="The wallet that the item is about.")


class WalletBatchTransfer(BatchTransfer, _OfWallet):
    """A `BatchTransfer` that names its wallet."""


class WalletBatchCompletion(BatchCompletion, _OfWallet):
    """A `BatchCompletion` that names its wallet."""


class WalletBatchReversal(BatchReversal, _OfWallet):
    """A `BatchReversal` that names its wallet."""


class WalletBatch(_Request):
    """Items of one wallet, decided in order, in one transaction."""

    items: Annotated[
        list[BatchTransfer | BatchCompletion | BatchReversal],
        Field(min_length=1, max_length=BATCH_ITEMS_MAX),
    ]
    atomic: bool = Field(
        default=False, description="`true`: the first refusal undoes the whole batch."
    )


class MultiBatch(_Request):
    """Items of any wallets: in order per wallet, not atomic across wallets."""

    items: Annotated[
        list[WalletBatchTransfer | WalletBatchCompletion | WalletBatchReversal],
        Field(min_length=1, max_length=MULTI_BATCH_ITEMS_MAX),
    ]


class Balances(BaseModel):
    """The wallet after the write."""

    version: int = Field(description="Use as min_version to read your own write.")
    balance: str = Field(description="What may be spent.", examples=["10.50"])
    pending_credit: str = Field(description="Held for pending credits, no longer in balance.")
    pending_debit: str = Field(description="Announced by pending debits, not yet in balance.")


class Wallet(BaseModel):
    """A wallet. Amounts are decimal strings with `scale` decimals."""

    id: str
    reference_id: str | None
    currency: str
    scale: int
    status: Literal["active", "frozen", "closed"]
    balance: str = Field(description="What may be spent.", examples=["10.50"])
    pending_credit: str = Field(description="Held for pending credits, no longer in balance.")
    pending_debit: str = Field(description="Announced by pending debits, not yet in balance.")
    version: int = Field(description="Number of events of this wallet so far.")
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime


class Transfer(BaseModel):
    """A transfer: `debit` put money INTO the wallet, `credit` took money OUT of it."""

    id: str
    wallet_id: str
    type: Literal["debit", "credit"]
    status: Literal["pending", "completed", "failed"]
    amount: str = Field(examples=["10.50"])
    currency: str
    reference_id: str | None
    metadata: dict[str, str]
    failure_reason: Literal["reverted", "expired"] | None
    created_at: datetime
    settled_at: datetime | None


class WrittenTransfer(Transfer):
    """A transfer as a write answers it: with the wallet after it."""

    wallet: Balances


class WalletList(BaseModel):
    """Wallets found, at most one."""

    items: list[Wallet]


class TransferPage(BaseModel):
    """Transfers, newest first."""

    items: list[Transfer]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null: last.")
    wallet_version: int = Field(description="The wallet's version that the page was read at.")


class ProblemError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="Path that explains this kind of problem.")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; branch on this.")
    request_id: str
    errors: list[ProblemError] | None = None
    applied: Literal["no", "unknown"] | None = Field(
        default=None,
        description="On 503 and 504: whether this request may have been applied. After `no` an "
        "earlier one under the same Idempotency-Key may have been: repeat under the key to "
        "learn it.",
    )


class ProblemKind(BaseModel):
    """A kind of problem, explained."""

    type: str
    code: str
    status: int
    title: str
    remedy: str = Field(description="What to do about it.")


class ProblemKindList(BaseModel):
    """Every kind of problem that this service answers with."""

    items: list[ProblemKind]


class Health(BaseModel):
    """This process serves."""

    status: Literal["ok"]


class Component(BaseModel):
    """One thing that the service needs."""

    ready: bool
    detail: str


class Readiness(BaseModel):
    """What is ready and what is not."""

    ready: bool
    components: dict[str, Component]


class BatchResult(BaseModel):
    """One item's result: the transfer, or the problem why not."""

    status: int = Field(description="As the item's own route would have answered.")
    transfer: WrittenTransfer | None = None
    problem: Problem | None = None
    replayed: bool | None = Field(default=None, description="Answered before under its own key.")


class WalletBatchResults(BaseModel):
    """A result an item, in order, and the wallet after all of them."""

    items: list[BatchResult]
    wallet: Balances | None = Field(description="null: there is no such wallet.")


class MultiBatchResults(BaseModel):
    """A result an item, in order."""

    items: list[BatchResult]
