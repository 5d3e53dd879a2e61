"""Responses to batch requests: one result per item, in request order.

Transfers and balances are already encoded as JSON and are copied.
"""

from collections.abc import Iterable
from typing import Final, assert_never

import msgspec

from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    ItemResult,
    KeyClaimed,
    Refused,
    RequestResult,
)
from serve_app.http.models import (
    BatchResult,
    MultiBatchResults,
    WalletBatchResults,
    encoded_already,
)
from serve_app.http.problems import FieldError, ProblemError, problem_document
from serve_app.http.responses import PreparedResponse, failure_problem, refusal_document, unexpected
from wallet.commands import Command, CreateTransfer, RefundTransfer
from wallet.refusals import Refusal, RefusalCode

_encoder: Final = msgspec.json.Encoder()


def item_result(command: Command, result: ItemResult) -> BatchResult:
    """The result of one item, with the status that a single request would get.

    ``replayed`` is for the item's own idempotency key. A batch replayed under its key is marked by
    a header, and its results are those of the first response.
    """
    replayed = result.replayed or None
    if isinstance(result, Applied):
        status = 201 if isinstance(command, CreateTransfer | RefundTransfer) else 200
        transfer = encoded_already(result.body)
        return BatchResult(status=status, transfer=transfer, replayed=replayed)
    if isinstance(result, Refused):
        document = refusal_document(result.refusal)
        return BatchResult(status=document.status, problem=document, replayed=replayed)
    assert_never(result)


def failed_result(problem: ProblemError, request_id: str) -> BatchResult:
    """The result of an item without a decision."""
    document = problem_document(
        problem.code,
        problem.detail,
        request_id,
        errors=problem.errors,
        applied=problem.applied,
    )
    return BatchResult(status=document.status, problem=document)


def batch_body(results: Iterable[BatchResult], wallet: bytes | None = None) -> bytes:
    """The JSON body of a batch response."""
    items = list(results)
    if wallet is None:
        return _encoder.encode(MultiBatchResults(items=items))
    balances = encoded_already(wallet) if wallet else None
    return _encoder.encode(WalletBatchResults(items=items, wallet=balances))


def result_lines(results: Iterable[BatchResult]) -> bytes:
    """One line per result (NDJSON)."""
    return _encoder.encode_lines(results)


def batch_response(body: bytes, *, replayed: bool) -> PreparedResponse:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return PreparedResponse(body, 200, headers)


def committed_batch(result: RequestResult) -> BatchCommitted:
    """The result of a committed batch.

    Raises:
        Problem: a failure, an idempotency key reused for another request, or
            ``batch_refused`` for an atomic batch, with a pointer to the refused item.
    """
    if isinstance(result, BatchCommitted):
        return result
    if isinstance(result, BatchRolledBack):
        raise _rolled_back_problem(result)
    if isinstance(result, Refused):
        raise refused_request(result.refusal)
    if isinstance(result, Failure):
        raise failure_problem(result)
    if isinstance(result, Applied | KeyClaimed):
        raise unexpected(result)
    assert_never(result)


def refused_request(refusal: Refusal) -> ProblemError:
    """The problem of a request that was refused as a whole: its idempotency key was reused."""
    return ProblemError(refusal.code, refusal.detail)


def _rolled_back_problem(result: BatchRolledBack) -> ProblemError:
    index, refusal = result.index, result.refusal
    pointer = f"/items/{index}"
    if refusal.code is RefusalCode.VALIDATION_ERROR:
        error = FieldError(pointer=pointer + (refusal.pointer or ""), detail=refusal.detail)
        return ProblemError(refusal.code, refusal.detail, errors=[error])
    return ProblemError(
        "batch_refused",
        f"Item {index} was refused ({refusal.code}), so the whole batch was rolled back. "
        f"{refusal.detail}",
        errors=[FieldError(pointer=pointer, detail=f"{refusal.code}: {refusal.detail}")],
        headers={"Idempotency-Replayed": "true"} if result.replayed else {},
        request_id=refusal.request_id,
    )
