"""Answers to batch requests: one result an item, in the order of the request.

The bodies of the results are JSON already; they are put together, not decoded and encoded again.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from actors.protocol import Answer, Reply
from serve_app.problems import FieldError, Problem, problem_document
from serve_app.replies import RawResponse, failure_problem, refusal_document
from wallet.commands import Command, CreateTransfer

_encoder: Final = msgspec.json.Encoder()


def item_result(command: Command, answer: Answer) -> bytes:
    """One item's result: ``status`` as the item's own route would give, and what it made.

    Marked as a replay only under the item's own key: a batch that is replayed as a whole says so
    in a header, and its results are the first answer's.
    """
    mark = b',"replayed":true' if answer.replayed else b""
    if answer.refused:
        document = refusal_document(answer.body)
        problem = _encoder.encode(document)
        return b'{"status":%d%b,"problem":%b}' % (document.status, mark, problem)
    status = 201 if isinstance(command, CreateTransfer) else 200
    return b'{"status":%d%b,"transfer":%b}' % (status, mark, answer.body)


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
    return b'{"items":[%b],"wallet":%b}' % (items, wallet or b"null")


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
