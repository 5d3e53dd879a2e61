"""Items of batch requests: decoded and validated in C, turned into commands in one pass."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from serve_app.fingerprints import fingerprint
from serve_app.ids import new_id
from serve_app.problems import FieldError, Problem, validation_problem
from serve_app.unique_members import require_unique_members
from wallet import commands
from wallet.contract import (
    IDEMPOTENCY_KEY_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
    VISIBLE_ASCII_PATTERN,
)
from wallet.ids import IdempotencyKey, TransferId, canonical_uuid
from wallet.money import AmountError, canonical_amount

# Python's `$` also matches before a final line break; the contract's patterns don't mean that.
_VISIBLE: Final = VISIBLE_ASCII_PATTERN.removesuffix("$") + r"\Z"
_TEXT: Final = TEXT_PATTERN.removesuffix("$") + r"\Z"

_Key = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=IDEMPOTENCY_KEY_MAX, pattern=_VISIBLE),
]
_ReferenceId = Annotated[
    str, msgspec.Meta(min_length=1, max_length=REFERENCE_ID_MAX, pattern=_TEXT)
]
_Metadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=METADATA_KEY_MAX, pattern=_TEXT)],
        Annotated[str, msgspec.Meta(max_length=METADATA_VALUE_MAX, pattern=r"\A[^\x00]*\Z")],
    ],
    msgspec.Meta(max_length=METADATA_ENTRIES_MAX),
]


class BatchItem(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A transfer (``type`` and ``amount``), or a settlement (``complete`` or ``revert``).

    A field that isn't sent stays UNSET: null is no amount and no id, and is refused.
    """

    type: Literal["debit", "credit"] | UnsetType = UNSET
    amount: str | int | UnsetType = UNSET
    status: Literal["pending", "completed"] | UnsetType = UNSET
    complete: str | UnsetType = UNSET
    revert: str | UnsetType = UNSET
    idempotency_key: _Key | None = None
    reference_id: _ReferenceId | None = None
    metadata: _Metadata = {}


class WalletBatchItem(
    BatchItem, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """An item that names its wallet."""

    wallet_id: str


class WalletBatch(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Items of one wallet, in order; ``atomic``: all or nothing."""

    items: list[BatchItem]
    atomic: bool = False


class MultiBatch(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Items of any wallets. In order per wallet, each wallet's in a transaction of its own."""

    items: list[WalletBatchItem]


BodyT = TypeVar("BodyT", bound=msgspec.Struct)

wallet_batch: Final = msgspec.json.Decoder(WalletBatch)
multi_batch: Final = msgspec.json.Decoder(MultiBatch)
one_item: Final = msgspec.json.Decoder(WalletBatchItem)


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
        raise Problem("malformed_json", f"{error}.") from None
    require_unique_members(body, decoded)
    return decoded


def _field_error(message: str) -> FieldError:
    """msgspec says ``what - at `$.items[3].amount```, or ``at `key` in `$.items[3].metadata```."""
    detail, _, place = message.partition(" - at `")
    path = place.rpartition("$")[2].rstrip("`").replace("[...]", "/*")
    return FieldError(
        pointer=path.replace("[", "/").replace("]", "").replace(".", "/"), detail=detail
    )


def require_count(count: int, most: int) -> None:
    """Between 1 and ``most`` items.

    Raises:
        Problem: validation_error.
    """
    if not 1 <= count <= most:
        detail = f"send 1 to {most} items, not {count}"
        raise validation_problem(FieldError(pointer="/items", detail=detail))


def to_items(items: Sequence[BatchItem], pointers: Iterable[str]) -> tuple[commands.Item, ...]:
    """``items`` as the write side takes them; ``pointers`` name each in problems.

    Raises:
        Problem: validation_error, naming every item that is wrong.
    """
    wrong: list[FieldError] = []
    made: list[commands.Item] = []
    for item, pointer in zip(items, pointers, strict=True):
        try:
            command = _command(item)
        except _ItemError as error:
            wrong.append(FieldError(pointer=pointer + error.pointer, detail=str(error)))
            continue
        made.append(commands.Item(command=command, keyed=_keyed(item, command)))
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
        status=item.status or "pending",
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


def _keyed(item: BatchItem, command: commands.Command) -> commands.Keyed | None:
    if item.idempotency_key is None:
        return None
    return commands.Keyed(
        key=IdempotencyKey(item.idempotency_key), fingerprint=fingerprint(command)
    )
