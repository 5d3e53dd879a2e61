"""What travels between the ingress and a shard, and how: MessagePack, one call a batch.

Both sides speak one `VERSION`, which they say when they connect; another one is refused, and so is
a field that is not known. Nothing of a command may be passed over: it moves money.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, Literal, TypeVar

import msgspec

from wallet.commands import CommandRequest
from wallet.refusals import Refusal

VERSION: Final = 3
"""Of everything below, of `wallet.commands` and `wallet.refusals`. A test says when it has to be
raised. Ray leads a replica to the shards of its own release, so two versions meet only where
something is wrong."""


class Applied(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="applied",
):
    """A command that is in the journal."""

    id: str
    """Of the wallet or the transfer that it made or changed."""
    version: int
    """Of the wallet after it."""
    body: bytes
    """JSON of the wallet or the transfer, as the stream has it."""
    replayed: bool = False


class Refused(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="refused",
):
    """A decision against a command. Of a batch as a whole: its key came with another request."""

    refusal: Refusal
    replayed: bool = False


class KeyClaimed(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="key_claimed",
):
    """The result of `ClaimKey`."""

    request_id: str
    """Of the request that claimed the key first."""
    replayed: bool = False


ItemResult = Applied | Refused


class BatchCommitted(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="batch_committed",
):
    """A batch that was decided item by item."""

    items: tuple[ItemResult, ...]
    wallet: bytes = b"null"
    """JSON of the wallet's balances after all of it; null: there is no such wallet."""
    replayed: bool = False


class BatchRolledBack(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="batch_rolled_back",
):
    """An atomic batch of which nothing was applied."""

    index: int
    """Of the item that was refused."""
    refusal: Refusal
    replayed: bool = False


class FailureCode(StrEnum):
    """Operating failures: not a decision of the rules, and never remembered."""

    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


class Failure(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="failed",
):
    """Why a submission got no decision. ``applied`` speaks of this submission, whatever came under
    its key before. "unknown": it may have happened; repeating it under the same key is safe either
    way."""

    code: FailureCode
    detail: str
    applied: Literal["no", "unknown"]
    retry_after_s: float = 1.0


RequestResult = ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack | Failure
"""What a submission comes to. A single command's result is an item's."""


_encoder: Final = msgspec.msgpack.Encoder()
_submissions: Final = msgspec.msgpack.Decoder(list[CommandRequest])
_replies: Final = msgspec.msgpack.Decoder(list[RequestResult])
_submission: Final = msgspec.msgpack.Decoder(CommandRequest)
_reply: Final[msgspec.msgpack.Decoder[RequestResult]] = msgspec.msgpack.Decoder(RequestResult)
_raws: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])

T = TypeVar("T")


def encode_submissions(submissions: list[CommandRequest]) -> bytes:
    return _encoder.encode(submissions)


def decode_submissions(payload: bytes) -> list[CommandRequest]:
    return _submissions.decode(payload)


def encode_replies(replies: list[RequestResult]) -> bytes:
    return _encoder.encode(replies)


def decode_replies(payload: bytes) -> list[RequestResult]:
    """A call's replies. One that can't be read fails alone: what it says may have happened."""
    try:
        return _replies.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        readable = (_readable(_reply, one) for one in _raws.decode(payload))
        return [_UNREADABLE_REPLY if one is None else one for one in readable]


async def serve_call(
    payload: bytes, submit: Callable[[list[CommandRequest]], Awaitable[list[RequestResult]]]
) -> bytes:
    """Encoded submissions in, encoded replies out. One that can't be read fails alone.

    Raises:
        msgspec.DecodeError: not even a list.
    """
    try:
        submissions = _submissions.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return encode_replies(await _submit_readable(payload, submit))
    replies = await submit(submissions)
    assert len(replies) == len(submissions), "INV-6 each submission has one reply"
    return encode_replies(replies)


async def _submit_readable(
    payload: bytes, submit: Callable[[list[CommandRequest]], Awaitable[list[RequestResult]]]
) -> list[RequestResult]:
    found = [_readable(_submission, one) for one in _raws.decode(payload)]
    readable = [one for one in found if one is not None]
    replies = iter(await submit(readable) if readable else ())
    return [_UNREADABLE if one is None else next(replies) for one in found]


def _readable(decoder: "msgspec.msgpack.Decoder[T]", payload: msgspec.Raw) -> T | None:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_UNREADABLE: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    # Which attempt it is can't be read either.
    detail="The shard can't read this command. An earlier delivery may have been applied; "
    "repeating it with the same Idempotency-Key is safe.",
    applied="unknown",
)
_UNREADABLE_REPLY: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail="The shard's reply can't be read. The command may have been applied; repeating it "
    "with the same Idempotency-Key is safe.",
    applied="unknown",
)
