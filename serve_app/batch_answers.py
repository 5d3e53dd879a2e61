"""Answers to batch requests: one result an item, in the order of the request.

The bodies of the results are JSON already; they are put together, not decoded and encoded again.
"""

from collections.abc import Iterable
from typing import Final, assert_never

import msgspec

from actors.protocol import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    ItemResult,
    KeyClaimed,
    Refused,
    RequestResult,
)
from serve_app.problems import FieldError, Problem, problem_document
from serve_app.replies import RawResponse, failure_problem, refusal_document, unexpected
from wallet.commands import Command, CreateTransfer
from wallet.refusals import Refusal, RefusalCode

_encoder: Final = msgspec.json.Encoder()


def item_result(command: Command, result: ItemResult) -> bytes:
    """One item's result: ``status`` as the item's own route would give, and what it made.

    Marked as a replay only under the item's own key: a batch that is replayed as a whole says so
    in a header, and its results are the first answer's.
    """
    mark = b',"replayed":true' if result.replayed else b""
    if isinstance(result, Applied):
        status = 201 if isinstance(command, CreateTransfer) else 200
        return b'{"status":%d%b,"transfer":%b}' % (status, mark, result.body)
    if isinstance(result, Refused):
        document = refusal_document(result.refusal)
        problem = _encoder.encode(document)
        return b'{"status":%d%b,"problem":%b}' % (document.status, mark, problem)
    assert_never(result)


def failed_result(problem: Problem, request_id: str) -> bytes:
    """The result of an item that no decision was reached on."""
    document = problem_document(
        problem.code,
        problem.detail,
        request_id,
        errors=problem.errors,
        applied=problem.applied,
    )
    return b'{"status":%d,"problem":%b}' % (document.status, _encoder.encode(document))


def batch_body(results: Iterable[bytes], wallet: bytes | None = None) -> bytes:
    """The JSON of a batch's answer."""
    items = b",".join(results)
    if wallet is None:
        return b'{"items":[%b]}' % items
    return b'{"items":[%b],"wallet":%b}' % (items, wallet)


def batch_response(body: bytes, *, replayed: bool) -> RawResponse:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return RawResponse(body, 200, headers)


def committed_batch(result: RequestResult) -> BatchCommitted:
    """The result of a batch that was decided item by item.

    Raises:
        Problem: an operating failure, the batch's key used for another request, or
            ``batch_refused`` for an atomic batch, with a pointer to the refused item.
    """
    if isinstance(result, BatchCommitted):
        return result
    if isinstance(result, BatchRolledBack):
        raise _undone(result)
    if isinstance(result, Refused):
        raise refused_request(result.refusal)
    if isinstance(result, Failure):
        raise failure_problem(result)
    if isinstance(result, Applied | KeyClaimed):
        raise unexpected(result)
    assert_never(result)


def refused_request(refusal: Refusal) -> Problem:
    """A batch's key came with another request before."""
    return Problem(refusal.code, refusal.detail)


def _undone(result: BatchRolledBack) -> Problem:
    index, refusal = result.index, result.refusal
    pointer = f"/items/{index}"
    if refusal.code is RefusalCode.VALIDATION_ERROR:
        error = FieldError(pointer=pointer + (refusal.pointer or ""), detail=refusal.detail)
        return Problem(refusal.code, refusal.detail, errors=[error])
    return Problem(
        "batch_refused",
        f"Item {index} was refused ({refusal.code}), so nothing of the batch was applied. "
        f"{refusal.detail}",
        errors=[FieldError(pointer=pointer, detail=f"{refusal.code}: {refusal.detail}")],
        headers={"Idempotency-Replayed": "true"} if result.replayed else {},
        request_id=refusal.request_id,
    )
