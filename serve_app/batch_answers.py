"""Answers to batch requests: one result an item, in the order of the request.

Transfers and balances are JSON already: they are copied, not decoded and encoded again.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from actors.protocol import Answer, Reply
from serve_app.problems import FieldError, Problem, problem_document
from serve_app.replies import RawResponse, failure_problem, refusal_document
from serve_app.schemas import (
    BatchResult,
    MultiBatchResults,
    WalletBatchResults,
    encoded_already,
)
from wallet.commands import Command, CreateTransfer

_encoder: Final = msgspec.json.Encoder()


def item_result(command: Command, answer: Answer) -> BatchResult:
    """One item's result: ``status`` as the item's own route would give, and what it made.

    Marked as a replay only under the item's own key: a batch that is replayed as a whole says so
    in a header, and its results are the first answer's.
    """
    replayed = answer.replayed or None
    if answer.refused:
        document = refusal_document(answer.body)
        return BatchResult(status=document.status, problem=document, replayed=replayed)
    status = 201 if isinstance(command, CreateTransfer) else 200
    transfer = encoded_already(answer.body)
    return BatchResult(status=status, transfer=transfer, replayed=replayed)


def failed_result(problem: Problem, request_id: str) -> BatchResult:
    """The result of an item that no decision was reached on."""
    document = problem_document(
        problem.code,
        problem.detail,
        request_id,
        errors=problem.errors,
        applied=problem.applied,
    )
    return BatchResult(status=document.status, problem=document)


def batch_body(results: Iterable[BatchResult], wallet: bytes | None = None) -> bytes:
    """The JSON of a batch's answer."""
    items = list(results)
    if wallet is None:
        return _encoder.encode(MultiBatchResults(items=items))
    balances = encoded_already(wallet) if wallet else None
    return _encoder.encode(WalletBatchResults(items=items, wallet=balances))


def result_lines(results: Iterable[BatchResult]) -> bytes:
    """A line a result."""
    return _encoder.encode_lines(results)


def batch_response(body: bytes, *, replayed: bool) -> RawResponse:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return RawResponse(body, 200, headers)


def raise_if_not_decided(reply: Reply) -> None:
    """What a batch as a whole failed by.

    Raises:
        Problem: an operating failure, the batch's key used for another request, or
            ``batch_refused`` for an atomic batch, with a pointer to the refused item.
    """
    if reply.failure is not None:
        raise failure_problem(reply.failure)
    if reply.undone:
        raise _undone(reply)
    if not reply.several:
        document = refusal_document(reply.answers[0].body)
        raise Problem(document.code, document.detail)


def _undone(reply: Reply) -> Problem:
    index = len(reply.answers) - 1
    document = refusal_document(reply.answers[index].body)
    pointer = f"/items/{index}"
    if document.code == "validation_error":
        errors = [
            FieldError(pointer=pointer + error.pointer, detail=error.detail)
            for error in document.errors or ()
        ]
        return Problem(document.code, document.detail, errors=errors)
    headers = {"Idempotency-Replayed": "true"} if reply.replayed else {}
    return Problem(
        "batch_refused",
        f"Item {index} was refused ({document.code}), so nothing of the batch was applied. "
        f"{document.detail}",
        errors=[FieldError(pointer=pointer, detail=f"{document.code}: {document.detail}")],
        headers=headers,
        request_id=document.request_id,
    )
