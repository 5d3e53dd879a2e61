"""Refusals and failures as RFC 9457 problem documents, the same from every layer.

The catalogue is the contract: one entry a code, explained by the service at its ``type``.
"""

from collections import Counter
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta
from starlette.responses import Response

PROBLEM_JSON: Final = "application/problem+json"


class ProblemType(NamedTuple):
    """A kind of problem. ``remedy`` tells what to do about it."""

    status: int
    title: str
    remedy: str


PROBLEM_TYPES: Final[dict[str, ProblemType]] = {
    "malformed_json": ProblemType(
        400, "Malformed JSON", "Send a JSON object in UTF-8, or no body where none is needed."
    ),
    "key_required": ProblemType(
        401, "Missing API key", "Send Authorization: Bearer and a key of this service."
    ),
    "key_invalid": ProblemType(
        401,
        "Invalid API key",
        "detail says why, to whoever has the whole key. A revoked or expired key stays so: ask "
        "the operator for a new one (`wallet keys create`).",
    ),
    "scope_missing": ProblemType(
        403,
        "Missing scope",
        "Reading needs wallets:read, writing needs wallets:write; admin is for everything.",
    ),
    "not_found": ProblemType(404, "Route not found", "See /docs for the routes of this service."),
    "wallet_not_found": ProblemType(
        404, "Wallet not found", "Check the id, or find the wallet by its reference_id."
    ),
    "transfer_not_found": ProblemType(
        404, "Transfer not found", "Check both ids: a transfer belongs to one wallet."
    ),
    "problem_not_found": ProblemType(404, "Problem not found", "GET /problems lists all of them."),
    "method_not_allowed": ProblemType(405, "Method not allowed", "See the Allow header, or /docs."),
    "answers_not_read": ProblemType(
        408,
        "Response stream not read",
        "The last line of a stream that ended early. Lines without an answer were not executed: "
        "send them again, and read answers while sending.",
    ),
    "insufficient_funds": ProblemType(
        409,
        "Insufficient funds",
        "A credit takes money OUT of the wallet. Debit the wallet (put money in) first, or ask "
        "for less. Under an Idempotency-Key this refusal is stored: use a new key to try again.",
    ),
    "balance_out_of_range": ProblemType(
        409, "Balance out of range", "Debit less, or settle what is pending."
    ),
    "transfer_already_completed": ProblemType(
        409,
        "Transfer already completed",
        "Only a pending transfer can be settled. To give the money back, make a new transfer.",
    ),
    "transfer_already_failed": ProblemType(
        409, "Transfer already failed", "Only a pending transfer can be settled. Make a new one."
    ),
    "reference_id_taken": ProblemType(
        409,
        "reference_id already taken",
        "Use that wallet (GET /v1/wallet?reference_id=…), or send another reference_id.",
    ),
    "batch_refused": ProblemType(
        409,
        "Atomic batch refused",
        "errors[] names the item that was refused and why. Nothing of the batch was applied.",
    ),
    "wallet_frozen": ProblemType(409, "Wallet frozen", "It takes no transfers until released."),
    "wallet_closed": ProblemType(409, "Wallet closed", "It takes no transfers any more."),
    "version_not_reached": ProblemType(
        409,
        "Version not reached",
        "Use the version from the response of a write to this wallet.",
    ),
    "body_too_large": ProblemType(413, "Body too large", "Send less, or use the batch routes."),
    "unsupported_media_type": ProblemType(
        415, "Unsupported media type", "Send Content-Type: application/json."
    ),
    "unsupported_content_encoding": ProblemType(
        415,
        "Unsupported content encoding",
        "Send the body as it is: no Content-Encoding, or identity.",
    ),
    "validation_error": ProblemType(
        422, "Invalid request", "errors[] names each field and what to send instead."
    ),
    "idempotency_key_reused": ProblemType(
        422,
        "Idempotency key reused",
        "A key belongs to one request permanently. Send a new key.",
    ),
    "overloaded": ProblemType(
        429,
        "Overloaded",
        "This request applied nothing. Try again after Retry-After, with the same Idempotency-Key.",
    ),
    "rate_limited": ProblemType(
        429,
        "Rate limit exceeded",
        "This request applied nothing. Try again after Retry-After, with the same "
        "Idempotency-Key; or ask the operator for a higher rate.",
    ),
    "internal_error": ProblemType(
        500,
        "Internal server error",
        "Report it with the request_id. Repeating a write under its Idempotency-Key is safe.",
    ),
    "unavailable": ProblemType(
        503,
        "Service unavailable",
        "`applied` says whether this request may have been applied. Repeating it after "
        "Retry-After with the same Idempotency-Key is safe.",
    ),
    "deadline_exceeded": ProblemType(
        504,
        "Deadline exceeded",
        "`applied` says whether this request may have been applied. Repeating it with the same "
        "Idempotency-Key is safe.",
    ),
}


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer into the body; ``#header/…``, ``#query/…`` or ``#path/…`` outside of it."""
    detail: str


Applied = Literal["no", "unknown"]


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details."""

    type: Annotated[str, Meta(description="Path that explains this kind of problem.")]
    title: str
    status: int
    detail: str
    code: Annotated[str, Meta(description="Stable; branch on this.")]
    request_id: str
    errors: list[FieldError] | None = None
    applied: Annotated[
        Applied | None,
        Meta(
            description="On 503 and 504: whether this request may have been applied. After `no` "
            "an earlier one under the same Idempotency-Key may have been: repeat under the key to "
            "learn it."
        ),
    ] = None


class ProblemError(Exception):
    """Raised anywhere in a request; becomes its answer."""

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
        """The request that was refused with this first; empty: the current one."""


problem_counts: Final[Counter[str]] = Counter(
    dict.fromkeys(("overloaded", "unavailable", "deadline_exceeded", "internal_error"), 0)
)
"""Problem documents made in this process, by code; each item of a batch counts. What alerts watch
starts at zero: Prometheus can't see an increase from nothing."""

_encoder: Final = msgspec.json.Encoder()


def problem_document(
    code: str,
    detail: str,
    request_id: str,
    *,
    errors: list[FieldError] | None = None,
    applied: Applied | None = None,
) -> ProblemDocument:
    kind = PROBLEM_TYPES[code]
    problem_counts[code] += 1
    return ProblemDocument(
        type=f"/problems/{code}",
        title=kind.title,
        status=kind.status,
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
