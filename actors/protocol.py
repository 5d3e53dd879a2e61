"""What travels between the ingress and a shard, and how: MessagePack, one call a batch."""

from enum import StrEnum
from typing import Final, Literal

import msgspec

from wallet.commands import Submission


class FailureCode(StrEnum):
    """Operating failures: not a decision of the rules, and never remembered."""

    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a submission got no decision. ``applied`` "unknown": it may have happened; repeating
    it under the same key is safe either way."""

    code: FailureCode
    detail: str
    applied: Literal["no", "unknown"]
    retry_after_s: float = 1.0


class Answer(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The decision on one item: the JSON of what came to be, or of the refusal."""

    body: bytes
    refused: bool = False
    replayed: bool = False
    version: int = 0
    remembered: bool = False
    """Of a refusal: whether it is kept under the client's key."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
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


def encode_submissions(submissions: list[Submission]) -> bytes:
    return _encoder.encode(submissions)


def decode_submissions(payload: bytes) -> list[Submission]:
    return _submissions.decode(payload)


def encode_replies(replies: list[Reply]) -> bytes:
    return _encoder.encode(replies)


def decode_replies(payload: bytes) -> list[Reply]:
    return _replies.decode(payload)
