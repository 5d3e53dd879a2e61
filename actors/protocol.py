"""What travels between the ingress and a shard, and how: MessagePack, one call a batch.

Both sides speak one `VERSION`, which they say when they connect; another one is refused, and so is
a field that is not known. Nothing of a command may be passed over: it moves money.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, Literal, TypeVar

import msgspec

from wallet.commands import Submission

VERSION: Final = 2
"""Of everything below and of `wallet.commands`. A test says when it has to be raised. Ray leads a
replica to the shards of its own release, so two versions meet only where something is wrong."""


class FailureCode(StrEnum):
    """Operating failures: not a decision of the rules, and never remembered."""

    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a submission got no decision. ``applied`` speaks of this submission, whatever came under
    its key before. "unknown": it may have happened; repeating it under the same key is safe either
    way."""

    code: FailureCode
    detail: str
    applied: Literal["no", "unknown"]
    retry_after_s: float = 1.0


class Answer(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The decision on one item: the JSON of what came to be, or of the refusal."""

    body: bytes
    refused: bool = False
    replayed: bool = False
    version: int = 0
    remembered: bool = False
    """Of a refusal: whether it is kept under the client's key."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What a submission comes to: an answer an item, or a failure and no answers."""

    answers: tuple[Answer, ...] = ()
    failure: Failure | None = None
    several: bool = False
    """The answers are those of a batch's items."""
    wallet: bytes = b""
    """JSON of the wallet's balances after a batch."""
    undone: bool = False
    """An atomic batch was refused by its last answer: nothing of it was applied."""
    replayed: bool = False


class _StoredAnswer(msgspec.Struct, omit_defaults=True):
    body: msgspec.Raw
    refused: bool
    version: int
    replayed: bool = False
    """Under the item's own key, when the batch was decided."""


class _StoredRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    request: str = ""
    """The whole request's fingerprint in hexadecimal. Empty: kept by a release without it."""


class _StoredReply(_StoredRequest, omit_defaults=True, kw_only=True):
    """A batch's reply as it is kept under its key: JSON that a person can read."""

    answers: list[_StoredAnswer]
    wallet: msgspec.Raw
    undone: bool


_json: Final = msgspec.json.Encoder()
_stored: Final = msgspec.json.Decoder(_StoredReply)
_stored_request: Final = msgspec.json.Decoder(_StoredRequest)


def encode_stored_reply(reply: Reply, request: bytes) -> bytes:
    """A batch's reply as it is kept under its idempotency key, with what the key belongs to."""
    answers = [
        _StoredAnswer(msgspec.Raw(answer.body), answer.refused, answer.version, answer.replayed)
        for answer in reply.answers
    ]
    return _json.encode(
        _StoredReply(
            answers=answers,
            wallet=msgspec.Raw(reply.wallet or b"null"),
            undone=reply.undone,
            request=request.hex(),
        )
    )


def stored_request(body: bytes) -> bytes:
    """The fingerprint of the whole request that a stored reply belongs to; empty if unknown."""
    return bytes.fromhex(_stored_request.decode(body).request)


def decode_stored_reply(whole: Answer) -> Reply:
    """The reply that was kept, from the replayed answer that holds it."""
    stored = _stored.decode(whole.body)
    return Reply(
        answers=tuple(
            Answer(
                body=bytes(one.body),
                refused=one.refused,
                version=one.version,
                replayed=one.replayed,
            )
            for one in stored.answers
        ),
        several=True,
        wallet=bytes(stored.wallet),
        undone=stored.undone,
        replayed=whole.replayed,
    )


_encoder: Final = msgspec.msgpack.Encoder()
_submissions: Final = msgspec.msgpack.Decoder(list[Submission])
_replies: Final = msgspec.msgpack.Decoder(list[Reply])
_submission: Final = msgspec.msgpack.Decoder(Submission)
_reply: Final = msgspec.msgpack.Decoder(Reply)
_raws: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])

T = TypeVar("T")


def encode_submissions(submissions: list[Submission]) -> bytes:
    return _encoder.encode(submissions)


def decode_submissions(payload: bytes) -> list[Submission]:
    return _submissions.decode(payload)


def encode_replies(replies: list[Reply]) -> bytes:
    return _encoder.encode(replies)


def decode_replies(payload: bytes) -> list[Reply]:
    """A call's replies. One that can't be read fails alone: what it says may have happened."""
    try:
        return _replies.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        readable = (_readable(_reply, one) for one in _raws.decode(payload))
        return [_UNREADABLE_REPLY if one is None else one for one in readable]


async def answer_call(
    payload: bytes, submit: Callable[[list[Submission]], Awaitable[list[Reply]]]
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
    payload: bytes, submit: Callable[[list[Submission]], Awaitable[list[Reply]]]
) -> list[Reply]:
    found = [_readable(_submission, one) for one in _raws.decode(payload)]
    readable = [one for one in found if one is not None]
    replies = iter(await submit(readable) if readable else ())
    return [_UNREADABLE if one is None else next(replies) for one in found]


def _readable(decoder: "msgspec.msgpack.Decoder[T]", payload: msgspec.Raw) -> T | None:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_UNREADABLE: Final = Reply(
    failure=Failure(
        code=FailureCode.UNAVAILABLE,
        # Which attempt it is can't be read either.
        detail="The shard can't read this command. An earlier delivery may have been applied; "
        "repeating it with the same Idempotency-Key is safe.",
        applied="unknown",
    )
)
_UNREADABLE_REPLY: Final = Reply(
    failure=Failure(
        code=FailureCode.UNAVAILABLE,
        detail="The shard's reply can't be read. The command may have been applied; repeating it "
        "with the same Idempotency-Key is safe.",
        applied="unknown",
    )
)
