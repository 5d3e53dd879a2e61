"""Batch request bodies: decoded and validated in C by msgspec, then converted to commands."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runtime.settings import Settings
from serve_app.http import field_errors
from serve_app.http.expiry import ExpiryError, requested_expiry
from serve_app.http.fingerprints import fingerprint
from serve_app.http.ids import new_id
from serve_app.http.parts import AMOUNT_OF_A_PART, KEY_OF_A_PART, KEY_OF_A_REFUND, own_key
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.request_fields import (
    Amount,
    ExpiresAt,
    ExpiresInS,
    ItemKey,
    Metadata,
    OnExpiry,
    PendingTransferId,
    ReferenceId,
    RefundedTransferId,
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
    """An item of a wallet's batch: a transfer or a settlement.

    `ITEM_FORMS` lists the fields of each.

    A missing field is UNSET; null is rejected.

    Fields are in the order in which clients usually send them: the decoder is faster then.
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
    final: (
        Annotated[
            bool,
            Meta(
                description="Of a completion with `amount`. `false`: what is left stays held; then "
                "the item needs an `idempotency_key`.",
            ),
        ]
        | UnsetType
    ) = UNSET
    revert: PendingTransferId | UnsetType = UNSET
    refund: RefundedTransferId | UnsetType = UNSET
    expires_at: ExpiresAt | UnsetType = UNSET
    expires_in_s: ExpiresInS | UnsetType = UNSET
    on_expiry: OnExpiry | UnsetType = UNSET
    idempotency_key: Annotated[
        ItemKey | None, Meta(description="Idempotency key of this item.")
    ] = None
    reference_id: ReferenceId | None = None
    metadata: Metadata = {}


class WalletBatchItem(
    BatchItem, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """An item of a batch over many wallets: a transfer or a settlement that names its wallet."""

    wallet_id: Annotated[
        str, Meta(description="Id of the item's wallet. If there is none, the result is 404.")
    ]


class ItemForm(NamedTuple):
    """A valid combination of fields. `_command` accepts these forms only.

    OpenAPI can't express this with one object and optional fields, so each form is a component.
    """

    component: str
    description: str
    fields: tuple[str, ...]
    required: tuple[str, ...]
    status_default: str = _STATUS_DEFAULT


_ANY_ITEM: Final = ("idempotency_key", "reference_id", "metadata")
_EXPIRY: Final = ("expires_at", "expires_in_s", "on_expiry")

ITEM_FORMS: Final = (
    ItemForm(
        component="BatchTransfer",
        description="An item that creates a transfer: `debit` puts money INTO the wallet, `credit` "
        "takes it OUT.",
        fields=(*_ANY_ITEM, "type", "amount", "status", *_EXPIRY),
        required=("type", "amount"),
    ),
    ItemForm(
        component="BatchCompletion",
        description="An item that completes a pending transfer: all of it, or `amount`.",
        fields=(*_ANY_ITEM, "complete", "amount", "final"),
        required=("complete",),
    ),
    ItemForm(
        component="BatchReversal",
        description="An item that reverts a pending transfer.",
        fields=(*_ANY_ITEM, "revert"),
        required=("revert",),
    ),
    ItemForm(
        component="BatchRefund",
        description="An item that refunds what a transfer completed: `amount`, or all that can "
        "still be refunded. It needs an `idempotency_key`, or the request's Idempotency-Key.",
        fields=(*_ANY_ITEM, "refund", "amount", "status", *_EXPIRY),
        required=("refund",),
        status_default="completed",
    ),
)

WALLET_ITEM_FORMS: Final = tuple(
    ItemForm(
        component=f"Multi{form.component}",
        description=f"A `{form.component}` that names its wallet.",
        fields=("wallet_id", *form.fields),
        required=("wallet_id", *form.required),
        status_default=form.status_default,
    )
    for form in ITEM_FORMS
)


def _count_up_to(most: int) -> Meta:
    """For the OpenAPI document only; `check_item_count` enforces the settings."""
    return Meta(extra_json_schema={"minItems": 1, "maxItems": most})


class WalletBatchBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Items of one wallet, decided in order, in one transaction."""

    items: Annotated[list[BatchItem], _count_up_to(BATCH_ITEMS_MAX)]
    atomic: Annotated[
        bool, Meta(description="`true`: if one item is refused, the whole batch is rolled back.")
    ] = False


class MultiWalletBatchBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Items of any wallets: in order per wallet, not atomic across wallets."""

    items: Annotated[list[WalletBatchItem], _count_up_to(MULTI_BATCH_ITEMS_MAX)]


BodyT = TypeVar("BodyT", bound=msgspec.Struct)

wallet_batch: Final = msgspec.json.Decoder(WalletBatchBody)
multi_batch: Final = msgspec.json.Decoder(MultiWalletBatchBody)
_MEMBERS: Final = ("items", "atomic", *WalletBatchItem.__struct_fields__)
"""Of batches and their items, for suggestions."""
ndjson_item: Final = msgspec.json.Decoder(WalletBatchItem)


def decode(decoder: msgspec.json.Decoder[BodyT], body: bytes) -> BodyT:
    """Decode and validate ``body``.

    Raises:
        Problem: malformed_json, or validation_error with a pointer to the invalid field.
    """
    try:
        decoded = decoder.decode(body)
    except msgspec.ValidationError as error:
        pointer, detail = field_errors.from_msgspec(str(error), _MEMBERS)
        raise validation_problem(FieldError(pointer=pointer, detail=detail)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("malformed_json", f"{error}.") from None
    require_unique_members(body, decoded)
    return decoded


def check_item_count(count: int, most: int) -> None:
    """Require 1 to ``most`` items.

    Raises:
        Problem: validation_error.
    """
    if not 1 <= count <= most:
        detail = f"send 1 to {most} items, not {count}"
        raise validation_problem(FieldError(pointer="/items", detail=detail))


def to_commands(
    items: Sequence[BatchItem], pointers: Iterable[str], *, has_key: bool = False
) -> tuple[commands.CommandItem, ...]:
    """Convert ``items`` to commands; ``pointers`` are their JSON pointers in problems.

    ``has_key``: they are a batch under one Idempotency-Key.

    Raises:
        Problem: validation_error, with a pointer to each invalid item.
    """
    errors: list[FieldError] = []
    command_items: list[commands.CommandItem] = []
    for item, pointer in zip(items, pointers, strict=True):
        try:
            command = _command(item, has_key=has_key)
        except _ItemError as error:
            errors.append(FieldError(pointer=pointer + error.pointer, detail=str(error)))
            continue
        command_items.append(
            commands.CommandItem(
                command=command, idempotency=_idempotency_of(item, command, has_key=has_key)
            )
        )
    if errors:
        raise validation_problem(*errors)
    return tuple(command_items)


class _ItemError(ValueError):
    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


def _command(item: BatchItem, *, has_key: bool) -> commands.Command:
    if item.refund is not UNSET:
        return _refund(item, item.refund, has_key=has_key)
    if item.complete is not UNSET or item.revert is not UNSET:
        return _settlement(item)
    if item.final is not UNSET:
        raise _ItemError("/final", "only of a completion: leave it out")
    if item.type is UNSET or item.amount is UNSET:
        raise _ItemError("", "send type and amount, or complete, or revert, or refund")
    status = item.status or _STATUS_DEFAULT
    return commands.CreateTransfer(
        transfer_id=TransferId(new_id()),
        type=item.type,
        status=status,
        amount=_canonical(item.amount),
        reference_id=item.reference_id,
        metadata=item.metadata,
        expiry=_expiry(item, status),
    )


def _refund(item: BatchItem, sent: str, *, has_key: bool) -> commands.RefundTransfer:
    if not item.type is item.complete is item.revert is item.final is UNSET:
        raise _ItemError("", _ONE_OF_THEM)
    if item.idempotency_key is None and not has_key:
        raise _ItemError("/idempotency_key", KEY_OF_A_REFUND)
    status = item.status or "completed"
    return commands.RefundTransfer(
        transfer_id=TransferId(new_id()),
        refunds=_transfer_id("refund", sent),
        status=status,
        amount=None if item.amount is UNSET else _canonical(item.amount),
        reference_id=item.reference_id,
        metadata=item.metadata,
        expiry=_expiry(item, status),
    )


_ONE_OF_THEM: Final = "send type and amount, or complete, or revert, or refund: one of them"


def _transfer_id(field: str, sent: str) -> TransferId:
    transfer_id = canonical_uuid(sent)
    if transfer_id is None:
        raise _ItemError(f"/{field}", "send the id of a transfer")
    return TransferId(transfer_id)


def _canonical(amount: str | int) -> str:
    try:
        return canonical_amount(amount if isinstance(amount, str) else str(amount))
    except AmountError as error:
        raise _ItemError("/amount", str(error)) from error


def _expiry(item: BatchItem, status: str) -> commands.RequestedExpiry | None:
    try:
        return requested_expiry(
            status=status,
            expires_at=None if item.expires_at is UNSET else item.expires_at,
            expires_in_s=None if item.expires_in_s is UNSET else item.expires_in_s,
            on_expiry=None if item.on_expiry is UNSET else item.on_expiry,
        )
    except ExpiryError as error:
        raise _ItemError(f"/{error.field}", str(error)) from error


def _settlement(item: BatchItem) -> commands.SettleTransfer:
    sent_ids = {"complete": item.complete, "revert": item.revert}
    settlements = {name: sent for name, sent in sent_ids.items() if sent is not UNSET}
    if len(settlements) > 1 or not _is_settlement_only(item):
        raise _ItemError("", _ONE_OF_THEM)
    ((name, sent),) = settlements.items()
    if name == "revert" and not (item.amount is item.final is UNSET):
        field = "final" if item.amount is UNSET else "amount"
        raise _ItemError(f"/{field}", "a transfer is reverted as a whole: leave it out")
    if item.final is not UNSET and item.amount is UNSET:
        raise _ItemError("/amount", AMOUNT_OF_A_PART)
    if item.final is False and item.idempotency_key is None:
        raise _ItemError("/idempotency_key", KEY_OF_A_PART)
    keyless = item.idempotency_key is None and item.amount is UNSET
    return commands.SettleTransfer(
        transfer_id=_transfer_id(name, sent),
        status="completed" if name == "complete" else "failed",
        amount=None if item.amount is UNSET else _canonical(item.amount),
        final=item.final is not False,
        reference_id=item.reference_id,
        metadata=item.metadata,
        delivery_id=TransferId(new_id()) if keyless and name == "complete" else None,
    )


def _is_settlement_only(item: BatchItem) -> bool:
    return item.type is item.status is item.expires_at is UNSET and (
        item.expires_in_s is item.on_expiry is UNSET
    )


def _idempotency_of(
    item: BatchItem, command: commands.Command, *, has_key: bool
) -> commands.Idempotency | None:
    if item.idempotency_key is not None:
        key = IdempotencyKey(item.idempotency_key)
    elif item.complete is not UNSET and item.amount is not UNSET and not has_key:
        key = own_key()
    else:
        return None
    return commands.Idempotency(key=key, fingerprint=fingerprint(command))
