"""Parses and validates bodies, headers and ids of requests."""

import asyncio
import re
from collections.abc import Collection
from typing import Final, TypeGuard, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.types import Message

from runtime.settings import Settings
from serve_app.http import field_errors
from serve_app.http.headers import header_of
from serve_app.http.ids import new_request_id
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.unique_members import require_unique_members
from wallet.api_limits import IDEMPOTENCY_KEY_MAX, REQUEST_ID_MAX
from wallet.ids import IdempotencyKey, TransferId, WalletId, canonical_uuid

ModelT = TypeVar("ModelT", bound=BaseModel)

BODY_TIMEOUT_S: Final = 30.0
"""From the first chunk of a body to its end: limits slow clients."""

_BODY_TIMED_OUT: Final = (
    f"The body was not complete within {BODY_TIMEOUT_S:g} s. This request applied nothing."
)

_JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
"""Media type of PATCH (RFC 7396)."""

_OUR_ETAG: Final = re.compile(r'"([0-9]{1,19})"')

_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]+")


def request_id_of(request: Request) -> str:
    """The client's ``X-Request-Id`` if it is valid, else a new one; constant per request."""
    state = request.scope.setdefault("state", {})
    known: str | None = state.get("request_id")
    if known is None:
        sent = header_of(request.scope, b"x-request-id")
        known = state["request_id"] = sent if _is_request_id(sent) else new_request_id()
    return known


def _is_request_id(sent: str | None) -> TypeGuard[str]:
    return (
        sent is not None
        and len(sent) <= REQUEST_ID_MAX
        and _VISIBLE_ASCII.fullmatch(sent) is not None
    )


def idempotency_key_of(request: Request) -> IdempotencyKey | None:
    """The ``Idempotency-Key`` header, if sent.

    Raises:
        Problem: validation_error, for anything but 1 to 255 visible ASCII characters.
    """
    sent = header_of(request.scope, b"idempotency-key")
    if sent is None:
        return None
    if not 1 <= len(sent) <= IDEMPOTENCY_KEY_MAX or not _VISIBLE_ASCII.fullmatch(sent):
        raise validation_problem(
            FieldError(
                pointer="#header/Idempotency-Key",
                detail=f"send 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters",
            )
        )
    return IdempotencyKey(sent)


def timeout_of(request: Request, settings: Settings) -> float:
    """Seconds until the write must be decided: ``X-Request-Timeout-Ms``, or the setting.

    Raises:
        Problem: validation_error, for anything but a whole number of milliseconds in bounds.
    """
    sent = header_of(request.scope, b"x-request-timeout-ms")
    if sent is None:
        return settings.request_timeout_s
    most = int(settings.request_timeout_max_s * 1000)
    if not sent.isascii() or not sent.isdecimal() or len(sent) > 9 or not 1 <= int(sent) <= most:
        raise validation_problem(
            FieldError(
                pointer="#header/X-Request-Timeout-Ms",
                detail=f"send a whole number of milliseconds from 1 to {most}",
            )
        )
    return int(sent) / 1000


def if_match_of(request: Request) -> tuple[int, ...] | None:
    """The versions that ``If-Match`` allows; None: any. What is no version never matches.

    Raises:
        Problem: validation_error, for what is no ETag of a wallet.
    """
    sent = header_of(request.scope, b"if-match")
    if sent is None or sent.strip() == "*":
        return None
    found = [_OUR_ETAG.fullmatch(part.strip()) for part in sent.split(",")]
    versions = tuple(int(one[1]) for one in found if one is not None)
    if len(versions) < len(found):
        raise validation_problem(
            FieldError(
                pointer="#header/If-Match",
                detail='send the ETag of a wallet: its version in quotes, such as "7"',
            )
        )
    return versions


def wallet_id_of(request: Request) -> WalletId:
    """The wallet id in the path; 404 if it is not a UUID."""
    wallet_id = canonical_uuid(request.path_params["wallet_id"])
    if wallet_id is None:
        raise ProblemError("wallet_not_found", "There is no wallet with this id.")
    return WalletId(wallet_id)


def transfer_id_of(request: Request) -> TransferId:
    """The transfer id in the path; 404 if it is not a UUID."""
    transfer_id = canonical_uuid(request.path_params["transfer_id"])
    if transfer_id is None:
        raise ProblemError("transfer_not_found", "This wallet has no transfer with this id.")
    return TransferId(transfer_id)


async def read_body(request: Request, bytes_max: int, *, other_type: str = _JSON) -> bytes:
    """Read the whole body. ``other_type``: a Content-Type that is accepted besides JSON.

    Raises:
        Problem: body_too_large, as soon as more than ``bytes_max`` bytes are declared or received;
            unsupported_media_type, for another Content-Type.
    """
    declared_length = header_of(request.scope, b"content-length") or ""
    if declared_length.isdecimal() and int(declared_length) > bytes_max:
        raise _too_large(bytes_max)
    body, more = _chunk(await request.receive())
    if more and len(body) <= bytes_max:
        try:
            # Not for the first chunk: HAProxy waits for it, and most bodies are one chunk.
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _read_remaining(request, body, bytes_max)
        except TimeoutError:
            raise ProblemError("malformed_json", _BODY_TIMED_OUT) from None
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    if body:
        _check_content_type(request, other_type)
    return body


async def _read_remaining(request: Request, first: bytes, bytes_max: int) -> bytes:
    """``first`` and the rest of the body, up to the chunk that exceeds ``bytes_max``."""
    chunks, size, more = [first], len(first), True
    while more and size <= bytes_max:
        chunk, more = _chunk(await request.receive())
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _chunk(message: Message) -> tuple[bytes, bool]:
    """A chunk of the body, and whether more may follow."""
    if message["type"] == "http.disconnect":
        raise ProblemError(
            "malformed_json", "The connection was closed before the end of the body."
        )
    return message.get("body", b""), message.get("more_body", False)


def _too_large(bytes_max: int) -> ProblemError:
    return ProblemError("body_too_large", f"Send at most {bytes_max} bytes.")


def _check_content_type(request: Request, other_type: str) -> None:
    declared = header_of(request.scope, b"content-type")
    if declared is None or declared == _JSON:
        return
    media_type = declared.partition(";")[0].strip().lower()
    if media_type not in (_JSON, other_type):
        raise ProblemError(
            "unsupported_media_type", f"Send Content-Type: application/json, not {media_type!r}."
        )


def parse_body(model: type[ModelT], body: bytes) -> ModelT:
    """Parse ``body``; an empty body is ``{}``.

    Raises:
        Problem: malformed_json, or validation_error with a pointer to each field.
    """
    try:
        parsed = model.model_validate_json(body or b"{}")
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise problem_from_validation(details, known=model.model_fields) from None
    require_unique_members(body, parsed)
    return parsed


def problem_from_validation(
    details: list[ErrorDetails], known: Collection[str] = ()
) -> ProblemError:
    """The problem for pydantic's validation errors. ``known``: the names of the body's members."""
    if details[0]["type"] == "json_invalid":
        if "number out of range" in details[0]["msg"]:
            return validation_problem(FieldError(pointer="", detail="a number is out of range"))
        return ProblemError("malformed_json", details[0]["msg"].replace("Invalid JSON: ", "") + ".")
    fields: dict[str, str] = {}
    for found in details:
        pointer, detail = field_errors.from_pydantic(found, known)
        fields.setdefault(pointer, detail)
    return validation_problem(
        *(FieldError(pointer=pointer, detail=detail) for pointer, detail in fields.items())
    )


def canonical_json(value: object) -> bytes:
    """JSON for fingerprints: the same bytes for the same value."""
    return msgspec.json.encode(value, order="deterministic")
