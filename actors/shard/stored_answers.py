"""Results as stored under idempotency keys: readable JSON.

`actors.rpc.messages` may change in any version. What is stored here is read by every later
release, so this format may only gain fields.
"""

from typing import Final, TypeVar, assert_never

import msgspec

from actors.journal.ports import JournalError, StoredAnswer
from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    ItemResult,
    KeyClaimed,
    Refused,
)
from wallet.commands import Idempotency
from wallet.refusals import Refusal


class _StoredRefusal(Refusal, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Ignores fields that a later release may have added."""


class _Claim(msgspec.Struct):
    request_id: str


class _Identified(msgspec.Struct):
    """The field that every wallet and transfer has."""

    id: str


class _StoredItem(msgspec.Struct, omit_defaults=True):
    body: msgspec.Raw
    """null if it was rolled back."""
    refused: bool
    version: int
    replayed: bool = False
    """It was replayed under the item's own key when the batch was decided."""


class _StoredRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    request: str = ""
    """Fingerprint of the whole request in hexadecimal. Empty: stored by a release without it."""


class _StoredBatch(_StoredRequest, omit_defaults=True, kw_only=True):
    answers: list[_StoredItem]
    """If the batch was rolled back: up to the item that was refused."""
    wallet: msgspec.Raw
    undone: bool


_encoder: Final = msgspec.json.Encoder()
_claim: Final = msgspec.json.Decoder(_Claim)
_identified: Final = msgspec.json.Decoder(_Identified)
_refusal: Final = msgspec.json.Decoder(_StoredRefusal)
_request: Final = msgspec.json.Decoder(_StoredRequest)
_batch: Final = msgspec.json.Decoder(_StoredBatch)

_NULL: Final = msgspec.Raw(b"null")
_ROLLED_BACK: Final = _StoredItem(body=_NULL, refused=False, version=0)

T = TypeVar("T")


# -- to JSON -----------------------------------------------------------------------------------


def stored_answer(
    result: ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack,
    idempotency: Idempotency,
    request_id: str,
) -> StoredAnswer:
    """``result`` as stored under the idempotency key of its request."""
    return StoredAnswer(
        fingerprint=idempotency.fingerprint,
        request_id=request_id,
        refused=isinstance(result, Refused),
        answer=_encoded(result, idempotency),
        version=_version_of(result),
    )


def encode_refusal(refusal: Refusal) -> bytes:
    return _encoder.encode(refusal)


def _encoded(
    result: ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack, idempotency: Idempotency
) -> bytes:
    if isinstance(result, Applied):
        return result.body
    if isinstance(result, Refused):
        return encode_refusal(result.refusal)
    if isinstance(result, KeyClaimed):
        return _encoder.encode(_Claim(request_id=result.request_id))
    if isinstance(result, BatchCommitted):
        answers = [_stored_item(item) for item in result.items]
        return _encoded_batch(answers, idempotency, wallet=msgspec.Raw(result.wallet), undone=False)
    if isinstance(result, BatchRolledBack):
        # Older releases take the refused item's index from the number of answers before it.
        answers = [_ROLLED_BACK] * result.index
        answers.append(_stored_item(Refused(refusal=result.refusal)))
        return _encoded_batch(answers, idempotency, wallet=_NULL, undone=True)
    assert_never(result)


def _encoded_batch(
    answers: list[_StoredItem], idempotency: Idempotency, *, wallet: msgspec.Raw, undone: bool
) -> bytes:
    return _encoder.encode(
        _StoredBatch(
            answers=answers, wallet=wallet, undone=undone, request=idempotency.request.hex()
        )
    )


def _stored_item(result: ItemResult) -> _StoredItem:
    if isinstance(result, Applied):
        body = result.body
    elif isinstance(result, Refused):
        body = encode_refusal(result.refusal)
    else:
        assert_never(result)
    return _StoredItem(
        body=msgspec.Raw(body),
        refused=isinstance(result, Refused),
        version=_version_of(result),
        replayed=result.replayed,
    )


def _version_of(result: ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack) -> int:
    """Version of the wallet after the last applied item; 0 if there is none."""
    if isinstance(result, BatchCommitted):
        return _version_of(result.items[-1])
    return result.version if isinstance(result, Applied) else 0


# -- from JSON ---------------------------------------------------------------------------------
# Each of these raises JournalError for what this release can't decode.


def item_result_from(stored: StoredAnswer, *, replayed: bool) -> ItemResult:
    """The result stored under the key of a single command or of an item."""
    return _item_result(
        stored.answer, refused=stored.refused, version=stored.version, replayed=replayed
    )


def claim_from(stored: StoredAnswer, *, replayed: bool) -> KeyClaimed:
    return KeyClaimed(request_id=_decode(_claim, stored.answer).request_id, replayed=replayed)


def batch_result_from(stored: StoredAnswer, *, replayed: bool) -> BatchCommitted | BatchRolledBack:
    """The result stored under the key of a batch."""
    batch = _decode(_batch, stored.answer)
    if batch.undone:
        *before, last = batch.answers
        refusal = refusal_from(last.body)
        return BatchRolledBack(index=len(before), refusal=refusal, replayed=replayed)
    items = tuple(
        _item_result(item.body, refused=item.refused, version=item.version, replayed=item.replayed)
        for item in batch.answers
    )
    return BatchCommitted(items=items, wallet=bytes(batch.wallet), replayed=replayed)


def refusal_from(answer: bytes | msgspec.Raw) -> Refusal:
    stored = _decode(_refusal, answer)
    return Refusal(
        code=stored.code,
        detail=stored.detail,
        pointer=stored.pointer,
        request_id=stored.request_id,
    )


def request_fingerprint_from(stored: StoredAnswer) -> bytes:
    """Fingerprint of the whole request of a batch; empty if unknown."""
    return bytes.fromhex(_decode(_request, stored.answer).request)


def _item_result(
    body: bytes | msgspec.Raw, *, refused: bool, version: int, replayed: bool
) -> ItemResult:
    if refused:
        return Refused(refusal=refusal_from(body), replayed=replayed)
    return Applied(
        id=_decode(_identified, body).id, version=version, body=bytes(body), replayed=replayed
    )


def _decode(decoder: "msgspec.json.Decoder[T]", answer: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"stored answer can't be decoded: {error}") from error
