"""Problem documents (RFC 9457) for all errors.

The catalogue is the contract: one entry per code. The service explains each at its ``type``.
"""

from collections import Counter
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta
from starlette.responses import Response

PROBLEM_JSON: Final = "application/problem+json"


class ProblemType(NamedTuple):
    """A problem type. ``remedy``: what to do."""

    status: int
    title: str
    remedy: str


PROBLEM_TYPES: Final[dict[str, ProblemType]] = {
    "malformed_json": ProblemType(
        400, "Malformed JSON", "Send a JSON object in UTF-8, or no body if the route needs none."
    ),
    "key_required": ProblemType(
        401, "Missing API key", "Send the header Authorization: Bearer with an API key."
    ),
    "key_invalid": ProblemType(
        401,
        "Invalid API key",
        "See detail for the reason. A revoked or expired key can't be restored: ask the operator "
        "for a new one (`wallet keys create`).",
    ),
    "scope_missing": ProblemType(
        403,
        "Missing scope",
        "Reads need the scope wallets:read, writes wallets:write; freezing, closing and overdrafts "
        "need admin, which includes both.",
    ),
    "not_found": ProblemType(404, "Route not found", "See /docs for the routes of this service."),
    "wallet_not_found": ProblemType(
        404, "Wallet not found", "Check the wallet id, or find the wallet by its reference_id."
    ),
    "transfer_not_found": ProblemType(
        404,
        "Transfer not found",
        "Check the wallet id and the transfer id: a transfer belongs to one wallet.",
    ),
    "problem_not_found": ProblemType(404, "Problem not found", "GET /problems lists all codes."),
    "method_not_allowed": ProblemType(
        405, "Method not allowed", "Use a method from the Allow header."
    ),
    "answers_not_read": ProblemType(
        408,
        "Response stream not read",
        "The stream ended early because the client did not read the results. Lines without a "
        "result were not executed: send them again, and read results while sending.",
    ),
    "not_acceptable": ProblemType(
        406, "Not acceptable", "Send an Accept header with a media type that detail names, or none."
    ),
    "insufficient_funds": ProblemType(
        409,
        "Insufficient funds",
        "A credit takes money OUT of the wallet. Debit the wallet (put money in) first, or send "
        "a smaller amount. With an Idempotency-Key this refusal is stored: retry with a new key.",
    ),
    "balance_out_of_range": ProblemType(
        409, "Balance out of range", "Send a smaller debit, or settle pending transfers first."
    ),
    "transfer_already_completed": ProblemType(
        409,
        "Transfer already completed",
        "Only a pending transfer can be settled, and once: a second completion with another amount "
        "is refused. To return the money, refund the transfer.",
    ),
    "amount_exceeds_hold": ProblemType(
        409,
        "Amount exceeds the hold",
        "At most the transfer's amount can be completed of it. Send a smaller amount, or none to "
        "complete all. With an Idempotency-Key this refusal is stored: send a new key.",
    ),
    "transfer_not_completed": ProblemType(
        409,
        "Transfer not completed",
        "Only what is completed can be refunded. Revert a pending transfer, or complete it first. "
        "The refusal is stored under the Idempotency-Key: send a new key then.",
    ),
    "transfer_is_refund": ProblemType(
        409,
        "Transfer is a refund",
        "A refund can't be refunded. To take it back, make a new transfer the other way.",
    ),
    "amount_exceeds_refundable": ProblemType(
        409,
        "Amount exceeds what can be refunded",
        "Refunds return at most what the transfer completed, pending refunds included. Read the "
        "transfer's refunded_amount and refund_pending_amount and send less, or revert a pending "
        "refund. The refusal is stored under the Idempotency-Key: send a new key.",
    ),
    "transfer_already_failed": ProblemType(
        409,
        "Transfer already failed",
        "Only a pending transfer can be settled, and not after it has expired. Create a new one.",
    ),
    "reference_id_taken": ProblemType(
        409,
        "reference_id already taken",
        "Use that wallet (GET /v1/wallet?reference_id=…), or send another reference_id.",
    ),
    "batch_refused": ProblemType(
        409,
        "Atomic batch refused",
        "errors[] contains the refused item and the reason. No item of the batch was applied.",
    ),
    "wallet_frozen": ProblemType(
        409,
        "Wallet frozen",
        "The wallet takes no transfers in the frozen direction, and completes none, until it is "
        "unfrozen. Pending transfers can be reverted.",
    ),
    "wallet_closed": ProblemType(
        409, "Wallet closed", "A closed wallet takes no transfers and no changes. Open another one."
    ),
    "wallet_not_empty": ProblemType(
        409,
        "Wallet not empty",
        "Only an empty wallet can be closed: settle its pending transfers and take its balance to "
        "zero first.",
    ),
    "overdraft_in_use": ProblemType(
        409,
        "Overdraft in use",
        "The limit can't be lower than what is used. Put money in (debit) first, or send a higher "
        "limit.",
    ),
    "metadata_full": ProblemType(
        409,
        "Metadata full",
        "A wallet has at most 20 entries of metadata. Remove one by sending null for it.",
    ),
    "version_not_reached": ProblemType(
        409,
        "Version not reached",
        "Use the version from the response of a write to this wallet.",
    ),
    "precondition_failed": ProblemType(
        412,
        "Wallet has changed",
        "If-Match names another version than the wallet has. Read the wallet, decide again, and "
        "send its new ETag, with a new Idempotency-Key.",
    ),
    "body_too_large": ProblemType(
        413, "Body too large", "Send a smaller body, or use the batch routes."
    ),
    "unsupported_media_type": ProblemType(
        415, "Unsupported media type", "Send Content-Type: application/json."
    ),
    "unsupported_content_encoding": ProblemType(
        415,
        "Unsupported content encoding",
        "Send the body without a Content-Encoding, or with identity.",
    ),
    "expiry_out_of_range": ProblemType(
        422,
        "Expiry out of range",
        "Send a time, or a number of seconds, within the bounds that detail names. With an "
        "Idempotency-Key this refusal is stored: send a new key.",
    ),
    "validation_error": ProblemType(
        422, "Invalid request", "errors[] contains each invalid field and what to send instead."
    ),
    "idempotency_key_reused": ProblemType(
        422,
        "Idempotency key reused",
        "An Idempotency-Key belongs to one request permanently. Send a new key.",
    ),
    "overloaded": ProblemType(
        429,
        "Overloaded",
        "This request was not applied. Retry after Retry-After, with the same Idempotency-Key.",
    ),
    "rate_limited": ProblemType(
        429,
        "Rate limit exceeded",
        "This request was not applied. Retry after Retry-After, with the same Idempotency-Key, "
        "or ask the operator for a higher rate limit.",
    ),
    "internal_error": ProblemType(
        500,
        "Internal server error",
        "Report the request_id to the operator. Retrying a write with its Idempotency-Key is safe.",
    ),
    "unavailable": ProblemType(
        503,
        "Service unavailable",
        "See `applied` for whether this request may have been applied. Retrying it after "
        "Retry-After with the same Idempotency-Key is safe.",
    ),
    "history_forked": ProblemType(
        503,
        "History of the wallet forked",
        "The database has lost some of this wallet's latest writes, and the operator decides what "
        "becomes of them (`wallet recover`). Until then the wallet can't be written. Retry later "
        "with the same Idempotency-Key: a write that was applied before is recognised.",
    ),
    "deadline_exceeded": ProblemType(
        504,
        "Deadline exceeded",
        "See `applied` for whether this request may have been applied. Retrying it with the same "
        "Idempotency-Key is safe.",
    ),
}


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """An invalid part of a request."""

    pointer: str
    """JSON pointer into the body, or ``#header/…``, ``#query/…``, ``#path/…``."""
    detail: str


Applied = Literal["no", "unknown"]


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details."""

    type: Annotated[str, Meta(description="Path of the explanation of this problem type.")]
    title: str
    status: int
    detail: str
    code: Annotated[str, Meta(description="Stable code for programs.")]
    request_id: str
    errors: list[FieldError] | None = None
    applied: Annotated[
        Applied | None,
        Meta(
            description="On 503 and 504: whether this request may have been applied. Even with "
            "`no`, an earlier request with the same Idempotency-Key may have been applied: retry "
            "with the key to find out."
        ),
    ] = None


class ProblemError(Exception):
    """Raised anywhere in a request; becomes the response."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
        applied: Applied | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.headers = headers or {}
        self.applied = applied
        self.request_id = request_id
        """Id of the request that was refused first; empty: the current request."""


problem_counts: Final[Counter[str]] = Counter(
    dict.fromkeys(("overloaded", "unavailable", "deadline_exceeded", "internal_error"), 0)
)
"""Problem documents created in this process, by code; batch items count one each. Codes with alerts
start at zero, so that their series exist: Prometheus can't see an increase from nothing."""

_encoder: Final = msgspec.json.Encoder()


def problem_document(
    code: str,
    detail: str,
    request_id: str,
    *,
    errors: list[FieldError] | None = None,
    applied: Applied | None = None,
) -> ProblemDocument:
    problem_type = PROBLEM_TYPES[code]
    problem_counts[code] += 1
    return ProblemDocument(
        type=f"/problems/{code}",
        title=problem_type.title,
        status=problem_type.status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=errors or None,
        applied=applied,
    )


def problem_response(problem: ProblemError, request_id: str) -> Response:
    document = problem_document(
        problem.code,
        problem.detail,
        problem.request_id or request_id,
        errors=problem.errors,
        applied=problem.applied,
    )
    return Response(
        _encoder.encode(document),
        status_code=document.status,
        media_type=PROBLEM_JSON,
        headers=problem.headers,
    )


def validation_problem(*errors: FieldError) -> ProblemError:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ProblemError(
        "validation_error", f"{first.pointer}: {first.detail}{more}", errors=list(errors)
    )
