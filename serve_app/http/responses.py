"""Converts results of the write side to HTTP responses."""

import math
from typing import Final, assert_never

import msgspec
from starlette.responses import Response

from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    FailureCode,
    ItemResult,
    KeyClaimed,
    Refused,
    RequestResult,
)
from serve_app.http.problems import FieldError, ProblemDocument, ProblemError, problem_document
from wallet.refusals import Refusal, RefusalCode

_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"

_encoder: Final = msgspec.json.Encoder()


class PreparedResponse(Response):
    """A response with encoded headers: nothing to merge or encode per request."""

    def __init__(self, body: bytes, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = headers


def item_response(
    result: ItemResult, status: int, *, location: str | None = None, etag: bool = False
) -> Response:
    """An applied command as ``status`` and location, a refused one as its problem.

    ``etag``: the answer is a wallet, whose version is its ETag.
    """
    if isinstance(result, Applied):
        body, media_type = result.body, _JSON
    elif isinstance(result, Refused):
        document = refusal_document(result.refusal)
        status, body, media_type = document.status, _encoder.encode(document), _PROBLEM
        location = None
    else:
        assert_never(result)
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    if etag and isinstance(result, Applied):
        headers.append((b"etag", b'"%d"' % result.version))
    if location is not None:
        headers.append((b"location", location.encode()))
    if result.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return PreparedResponse(body, status, headers)


def refusal_document(refusal: Refusal) -> ProblemDocument:
    errors = None
    if refusal.code is RefusalCode.VALIDATION_ERROR:
        errors = [FieldError(pointer=refusal.pointer or "", detail=refusal.detail)]
    return problem_document(refusal.code, refusal.detail, refusal.request_id, errors=errors)


def single_result(result: RequestResult) -> ItemResult:
    """The result of a request with one command.

    Raises:
        Problem: overloaded, unavailable or deadline_exceeded.
    """
    if isinstance(result, Applied | Refused):
        return result
    if isinstance(result, Failure):
        raise failure_problem(result)
    if isinstance(result, KeyClaimed | BatchCommitted | BatchRolledBack):
        raise unexpected(result)
    assert_never(result)


def unexpected(result: RequestResult) -> Exception:
    """A bug: a result type that this kind of request can't have."""
    return AssertionError(f"unexpected {type(result).__name__}")


def failure_problem(failure: Failure) -> ProblemError:
    headers = {}
    if failure.code is not FailureCode.DEADLINE_EXCEEDED:
        headers["Retry-After"] = str(max(1, math.ceil(failure.retry_after_s)))
    return ProblemError(
        failure.code,
        failure.detail,
        headers=headers,
        applied=None if failure.code is FailureCode.OVERLOADED else failure.applied,
    )
