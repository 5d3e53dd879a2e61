"""Queries of lists: filters and pages."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from projections.transfer_list import TransferFilter
from projections.wallet_list import WalletFilter
from serve_app.http.times import Time
from serve_app.routes.read_requests import PageQuery
from wallet.api_limits import (
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
)
from wallet.currencies import CURRENCY_PATTERN
from wallet.ids import TransferId, canonical_uuid
from wallet.money import canonical_limit

TRANSFER_CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]{11}$"
"""Clients pass cursors back unchanged; anything else is rejected."""

WALLET_CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]{32}$"

METADATA: Final = "metadata"
"""A filter for an entry is sent as ``metadata.KEY=value``."""

ENTRY_PATTERN: Final = r"^[^\x00]*$"
"""Of an entry's value: Postgres can't compare a text with NUL."""

_PREFIX: Final = f"{METADATA}."

ReferenceId = Annotated[
    str, StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN)
]
# Without the rules of stored entries: what can't be stored is not found.
_Entries = Annotated[
    dict[
        Annotated[
            str, StringConstraints(min_length=1, max_length=METADATA_KEY_MAX, pattern=TEXT_PATTERN)
        ],
        Annotated[str, StringConstraints(max_length=METADATA_VALUE_MAX, pattern=ENTRY_PATTERN)],
    ],
    Field(max_length=METADATA_ENTRIES_MAX),
]
_Amount = Annotated[str, AfterValidator(canonical_limit)]


def _transfer_id(sent: str) -> TransferId:
    transfer_id = canonical_uuid(sent)
    if transfer_id is None:
        raise ValueError("send the id of a transfer")
    return TransferId(transfer_id)


class ListQuery(PageQuery):
    """Filters that all lists have."""

    created_from: Time | None = None
    created_before: Time | None = None
    metadata: _Entries = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_entries(cls, sent: Any) -> Any:
        entries = {
            name.removeprefix(_PREFIX): value
            for name, value in sent.items()
            if name.startswith(_PREFIX)
        }
        if not entries:
            return sent
        others = {name: value for name, value in sent.items() if not name.startswith(_PREFIX)}
        return others | {METADATA: entries}


class WalletListQuery(ListQuery):
    """Filter and page of a wallet list, or the one wallet with a reference_id."""

    reference_id: ReferenceId | None = None
    reference_id_prefix: ReferenceId | None = None
    currency: Annotated[str, StringConstraints(pattern=CURRENCY_PATTERN)] | None = None
    status: Literal["active", "frozen", "closed"] | None = None
    cursor: Annotated[str, StringConstraints(pattern=WALLET_CURSOR_PATTERN)] | None = None

    def as_filter(self) -> WalletFilter:
        return WalletFilter(
            reference_id_prefix=self.reference_id_prefix,
            currency=self.currency,
            status=self.status,
            created_from=self.created_from,
            created_before=self.created_before,
            metadata=self.metadata,
        )


class TransferQuery(ListQuery):
    """Filter and page of a transfer list."""

    status: Literal["pending", "completed", "failed"] | None = None
    type: Literal["debit", "credit"] | None = None
    reference_id: ReferenceId | None = None
    refunds: Annotated[str, AfterValidator(_transfer_id)] | None = None
    amount_min: _Amount | None = None
    amount_max: _Amount | None = None
    cursor: Annotated[str, StringConstraints(pattern=TRANSFER_CURSOR_PATTERN)] | None = None

    def as_filter(self) -> TransferFilter:
        return TransferFilter(
            status=self.status,
            type=self.type,
            reference_id=self.reference_id,
            refunds=None if self.refunds is None else TransferId(self.refunds),
            amount_min=self.amount_min,
            amount_max=self.amount_max,
            created_from=self.created_from,
            created_before=self.created_before,
            metadata=self.metadata,
        )
