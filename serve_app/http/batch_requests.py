"""Items of batch requests: decoded and validated in C, turned into commands in one pass."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runtime.settings import Settings
from serve_app.http.fingerprints import fingerprint
from serve_app.http.ids import new_id
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.request_fields import (
    Amount,
    ItemKey,
    Metadata,
    PendingTransferId,
    ReferenceId,
)
from serve_app.http.unique_members import require_unique_members
from wallet import commands
from wallet.ids import IdempotencyKey, TransferId, canonical_uuid
from wallet.money import AmountError, canonical_amount

BATCH_ITEMS_MAX: Final[int] = Settings.model_fields["batch_items_max"].default
MULTI_BATCH_ITEMS_MAX: Final[int] = Settings.model_fields["multi_batch_items_max"].default

_STATUS_DEFAULT: Final = "pending"


class BatchItem(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A transfer or a settlement: `ITEM_FORMS` says which fields make which.

    A field that isn't sent stays UNSET: null is no amount and no id, and is refused.

    Fields are in the order that clients usually send them in: the decoder expects the next one.
    """

    type: Literal["debit", "credit"] | UnsetType = UNSET
    amount: Amount | UnsetType = UNSET
    status: (
        Annotated[
            Literal["pending", "completed"], Meta(extra_json_schema={"default": _STATUS_DEFAULT})
        ]
        | UnsetType
    ) = UNSET
    complete: PendingTransferId | UnsetType = UNSET
    revert: PendingTransferId | UnsetType = UNSET
    idempotency_key: Annotated[ItemKey | None, Meta(description="This item's own key.")] = None
    reference_id: ReferenceId | None = None
    metadata: Metadata = {}


class WalletBatchItem(
    BatchItem, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """An item that names its wallet."""

    wallet_id: Annotated[str, Meta(description="The wallet that the item is about.")]


class ItemForm(NamedTuple):
    """Fields that make an item together. `_command` takes these forms and no other.

    An OpenAPI document can't say that of one object with optional fields, so each form is a
    component of its own there.
    """

    component: str
    description: str
    fields: tuple[str, ...]
    required: tuple[str, ...]


_ANY_ITEM: Final = ("idempotency_key", "reference_id", "metadata")

ITEM_FORMS: Final = (
    ItemForm(
        component="BatchTransfer",
        description="An item that makes a transfer: `debit` puts money INTO the wallet, `credit` "
        "takes it OUT.",
        fields=(*_ANY_ITEM, "type", "amount", "status"),
        required=("type", "amount"),
    ),
    ItemForm(
        component="BatchCompletion",
        description="An item that completes a pending transfer.",
        fields=(*_ANY_ITEM, "complete"),
        required=("complete",),
    ),
    ItemForm(
        component="BatchReversal",
        description="An item that reverts a pending transfer.",
        fields=(*_ANY_ITEM, "revert"),
        required=("revert",),
    ),
)

WALLET_ITEM_FORMS: Final = tuple(
    ItemForm(
        component=f"Wallet{form.component}",
        description=f"A `{form.component}` that names its wallet.",
        fields=("wallet_id", *form.fields),
        required=("wallet_id", *form.required),
    )
    for form in ITEM_FORMS
)


def _count_up_to(most: int) -> Meta:
    """Describes; `check_item_count` checks, by the settings."""
    return Meta(extra_json_schema={"minItems": 1, "maxItems": most})


class WalletBatchBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Items of one wallet, decided in order, in one transaction."""

    items: Annotated[list[BatchItem], _count_up_to(BATCH_ITEMS_MAX)]
    atomic: Annotated[
        bool, Meta(description="`true`: the first refusal undoes the whole batch.")
    ] = False


class MultiWalletBatchBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Items of any wallets: in order per wallet, not atomic across wallets."""

    items: Annotated[list[WalletBatchItem], _count_up_to(MULTI_BATCH_ITEMS_MAX)]


BodyT = TypeVar("BodyT", bound=msgspec.Struct)

wallet_batch: Final = msgspec.json.Decoder(WalletBatchBody)
multi_batch: Final = msgspec.json.Decoder(MultiWalletBatchBody)
ndjson_item: Final = msgspec.json.Decoder(WalletBatchItem)


def decode(decoder: msgspec.json.Decoder[BodyT], body: bytes) -> BodyT:
    """``body``, validated.

    Raises:
        Problem: malformed_json, or validation_error with a pointer to what is wrong.
    """
    try:
        decoded = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise validation_problem(_field_error(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("malformed_json", f"{error}.") from None
    require_unique_members(body, decoded)
    return decoded


def _field_error(message: str) -> FieldError:
    """msgspec says ``what - at `$.items[3].amount```, or ``at `key` in `$.items[3].metadata```."""
    detail, _, place = message.partition(" - at `")
    path = place.rpartition("$")[2].rstrip("`").replace("[...]", "/*")
    return FieldError(
        pointer=path.replace("[", "/").replace("]", "").replace(".", "/"), detail=detail
    )


def check_item_count(count: int, most: int) -> None:
    """Between 1 and ``most`` items.

    Raises:
        Problem: validation_error.
    """
    if not 1 <= count <= most:
        detail = f"send 1 to {most} items, not {count}"
        raise validation_problem(FieldError(pointer="/items", detail=detail))


def to_commands(
    items: Sequence[BatchItem], pointers: Iterable[str]
) -> tuple[commands.CommandItem, ...]:
    """``items`` as the write side takes them; ``pointers`` name each in problems.

    Raises:
        Problem: validation_error, naming every item that is wrong.
    """
    wrong: list[FieldError] = []
    made: list[commands.CommandItem] = []
    for item, pointer in zip(items, pointers, strict=True):
        try:
            command = _command(item)
        except _ItemError as error:
            wrong.append(FieldError(pointer=pointer + error.pointer, detail=str(error)))
            continue
        made.append(commands.CommandItem(command=command, idempotency=_keyed(item, command)))
    if wrong:
        raise validation_problem(*wrong)
    return tuple(made)


class _ItemError(ValueError):
    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


def _command(item: BatchItem) -> commands.Command:
    if item.complete is not UNSET or item.revert is not UNSET:
        return _settlement(item)
    if item.type is UNSET or item.amount is UNSET:
        raise _ItemError("", "send type and amount, or complete, or revert")
    try:
        amount = canonical_amount(item.amount if isinstance(item.amount, str) else str(item.amount))
    except AmountError as error:
        raise _ItemError("/amount", str(error)) from error
    return commands.CreateTransfer(
        transfer_id=TransferId(new_id()),
        type=item.type,
        status=item.status or _STATUS_DEFAULT,
        amount=amount,
        reference_id=item.reference_id,
        metadata=item.metadata,
    )


def _settlement(item: BatchItem) -> commands.SettleTransfer:
    asked = {"complete": item.complete, "revert": item.revert}
    named = {name: sent for name, sent in asked.items() if sent is not UNSET}
    if len(named) > 1 or not (item.type is item.amount is item.status is UNSET):
        raise _ItemError("", "send type and amount, or complete, or revert: one of them")
    ((name, sent),) = named.items()
    transfer_id = canonical_uuid(sent)
    if transfer_id is None:
        raise _ItemError(f"/{name}", "send the id of a transfer")
    return commands.SettleTransfer(
        transfer_id=TransferId(transfer_id),
        status="completed" if name == "complete" else "failed",
        reference_id=item.reference_id,
        metadata=item.metadata,
    )


def _keyed(item: BatchItem, command: commands.Command) -> commands.Idempotency | None:
    if item.idempotency_key is None:
        return None
    return commands.Idempotency(
        key=IdempotencyKey(item.idempotency_key), fingerprint=fingerprint(command)
    )
