"""Messages between the ingress and a shard: MessagePack, one call per batch.

Both sides exchange their `VERSION` when they connect. Another version is rejected, and so is an
unknown field: no part of a command may be ignored, because it moves money.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, Literal, TypeVar

import msgspec

from wallet.commands import CommandRequest
from wallet.refusals import Refusal

VERSION: Final = 7
"""Version of everything below, of `wallet.commands` and `wallet.refusals`. A test fails when it has
to be raised. Ray connects a replica to the shards of its own release, so two versions meet only if
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
    """A decision against a command. For a whole batch: its key was used for another request."""

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
    """JSON of the wallet's balances after the batch; null: there is no such wallet."""
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
    """Operating failures: no decision of the rules, and never stored under a key."""

    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    HISTORY_FORKED = "history_forked"


class Failure(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="failed",
):
    """Why a request got no decision. ``applied`` is about this request, whatever was sent under its
    key before. "unknown": it may have been applied; repeating it under the same key is safe."""

    code: FailureCode
    detail: str
    applied: Literal["no", "unknown"]
    retry_after_s: float = 1.0


RequestResult = ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack | Failure
"""The result of a request. That of a single command is an item's."""


_encoder: Final = msgspec.msgpack.Encoder()
_requests_decoder: Final = msgspec.msgpack.Decoder(list[CommandRequest])
_replies: Final = msgspec.msgpack.Decoder(list[RequestResult])
_request_decoder: Final = msgspec.msgpack.Decoder(CommandRequest)
_reply: Final[msgspec.msgpack.Decoder[RequestResult]] = msgspec.msgpack.Decoder(RequestResult)
_raws: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])

T = TypeVar("T")


def encode_submissions(requests: list[CommandRequest]) -> bytes:
    return _encoder.encode(requests)


def decode_submissions(payload: bytes) -> list[CommandRequest]:
    return _requests_decoder.decode(payload)


def encode_replies(replies: list[RequestResult]) -> bytes:
    return _encoder.encode(replies)


def decode_replies(payload: bytes) -> list[RequestResult]:
    """A call's replies. One that can't be decoded fails alone: its command may be applied."""
    try:
        return _replies.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        readable = (_readable(_reply, one) for one in _raws.decode(payload))
        return [_UNREADABLE_REPLY if one is None else one for one in readable]


async def serve_call(
    payload: bytes, submit: Callable[[list[CommandRequest]], Awaitable[list[RequestResult]]]
) -> bytes:
    """Encoded requests in, encoded replies out. One that can't be decoded fails alone.

    Raises:
        msgspec.DecodeError: the payload is no list.
    """
    try:
        requests = _requests_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return encode_replies(await _submit_readable(payload, submit))
    replies = await submit(requests)
    assert len(replies) == len(requests), "INV-6 each request has one reply"
    return encode_replies(replies)


async def _submit_readable(
    payload: bytes, submit: Callable[[list[CommandRequest]], Awaitable[list[RequestResult]]]
) -> list[RequestResult]:
    found = [_readable(_request_decoder, one) for one in _raws.decode(payload)]
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
    # The attempt number can't be decoded either.
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
