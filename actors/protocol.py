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


class Reply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a submission comes to: an answer an item, or a failure and no answers."""

    answers: tuple[Answer, ...] = ()
    failure: Failure | None = None
    wallet: bytes = b""
    """JSON of the wallet's balances after the submission; only where it has several items."""
    undone: bool = False
    """An atomic submission was refused: nothing of it was applied."""


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
