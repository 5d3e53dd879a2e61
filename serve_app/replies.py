"""From the write side's replies to HTTP responses."""

import math
from typing import Final

import msgspec
from starlette.responses import Response

from actors.protocol import Answer, Failure, FailureCode, Reply
from serve_app.problems import FieldError, Problem, ProblemDocument, problem_document
from wallet.refusals import Refusal, RefusalCode

_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"

_refusal: Final = msgspec.json.Decoder(Refusal)
_claim: Final = msgspec.json.Decoder(dict[str, str])
_encoder: Final = msgspec.json.Encoder()


class RawResponse(Response):
    """A response whose headers are ready to send: no merging, no encoding per request."""

    def __init__(self, body: bytes, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = headers


def respond(answer: Answer, status: int, *, location: str | None = None) -> Response:
    """An accepted answer with ``status``, a refused one as its problem."""
    body, media_type = answer.body, _JSON
    if answer.refused:
        document = refusal_document(answer.body)
        status, body, media_type = document.status, _encoder.encode(document), _PROBLEM
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    if location is not None and not answer.refused:
        headers.append((b"location", location.encode()))
    if answer.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return RawResponse(body, status, headers)


def refusal_document(body: bytes) -> ProblemDocument:
    """The problem document of an encoded refusal."""
    refusal = _refusal.decode(body)
    errors = None
    if refusal.code is RefusalCode.VALIDATION_ERROR:
        errors = [FieldError(pointer=refusal.pointer or "", detail=refusal.detail)]
    return problem_document(refusal.code, refusal.detail, refusal.request_id, errors=errors)


def claimed_by(answer: Answer) -> str:
    """The request that a key was claimed by first, from the answer to `ClaimKey`."""
    return _claim.decode(answer.body)["request_id"]


def only_answer(reply: Reply) -> Answer:
    """The answer to a submission of one item.

    Raises:
        Problem: overloaded, unavailable or deadline_exceeded.
    """
    if reply.failure is not None:
        raise failure_problem(reply.failure)
    return reply.answers[0]


def failure_problem(failure: Failure) -> Problem:
    headers = {}
    if failure.code is not FailureCode.DEADLINE_EXCEEDED:
        headers["Retry-After"] = str(max(1, math.ceil(failure.retry_after_s)))
    return Problem(
        failure.code,
        failure.detail,
        headers=headers,
        applied=None if failure.code is FailureCode.OVERLOADED else failure.applied,
    )
