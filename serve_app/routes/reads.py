"""Read routes: from the projections, or from the write side's tables on request."""

import re
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from starlette.requests import Request
from starlette.responses import Response

from projections.queries import CursorError, TransferFilter
from serve_app.dependencies import dependencies_of
from serve_app.http import field_errors
from serve_app.http.models import WalletList
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.request_rules import query_of
from serve_app.http.requests import transfer_id_of, wallet_id_of
from serve_app.http.responses import PreparedResponse
from wallet.api_limits import (
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
    VERSION_MAX,
)
from wallet.ids import WalletId
from wallet.representation import ENCODER

CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]{11}$"
"""Clients pass cursors back unchanged; anything else is rejected."""

_OUR_ETAG: Final = re.compile(r'"([0-9]{1,19})"')

QueryT = TypeVar("QueryT", bound=BaseModel)


def _plain_digits(sent: str) -> str:
    """Reject ``+10``, ``1_0`` and ``10.0``, which pydantic accepts."""
    if not (sent.isascii() and sent.isdecimal()):
        raise ValueError("send a whole number in plain digits")
    return sent


_WholeNumber = Annotated[int, BeforeValidator(_plain_digits)]


class FreshQuery(BaseModel):
    """Required freshness of a read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_version: Annotated[_WholeNumber, Field(ge=0, le=VERSION_MAX)] = 0
    consistency: Literal["eventual", "strong"] = "eventual"

    @property
    def is_strong(self) -> bool:
        return self.consistency == "strong"


class FindQuery(FreshQuery):
    """Query of the wallet search."""

    reference_id: Annotated[
        str, StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN)
    ]


class TransferQuery(FreshQuery):
    """Filter and page of a transfer list."""

    status: Literal["pending", "completed", "failed"] | None = None
    type: Literal["debit", "credit"] | None = None
    limit: Annotated[_WholeNumber, Field(ge=1, le=PAGE_LIMIT_MAX)] = PAGE_LIMIT_DEFAULT
    cursor: Annotated[str, StringConstraints(pattern=CURSOR_PATTERN)] | None = None


_fresh_query = TypeAdapter(FreshQuery)
_find_query = TypeAdapter(FindQuery)
_transfer_query = TypeAdapter(TransferQuery)


def _query_of(adapter: TypeAdapter[QueryT], request: Request) -> QueryT:
    try:
        return adapter.validate_python(query_of(request))
    except ValidationError as error:
        found = map(field_errors.from_query, error.errors(include_url=False, include_context=False))
        raise validation_problem(
            *(FieldError(pointer=pointer, detail=detail) for pointer, detail in found)
        ) from None


def _require_version(version: int, query: FreshQuery) -> None:
    if version < query.min_version:
        raise ProblemError(
            "version_not_reached",
            f"The wallet is at version {version}, min_version is {query.min_version}.",
        )


async def get_wallet(request: Request) -> Response:
    """A wallet with its balances."""
    wallet_id = wallet_id_of(request)
    query = _query_of(_fresh_query, request)
    known = ",".join(request.headers.getlist("if-none-match"))
    wallet = await dependencies_of(request).queries.wallet(
        wallet_id, min_version=max(query.min_version, _seen_by(known)), strong=query.is_strong
    )
    if wallet is None:
        raise await _not_found(request, wallet_id, _NO_WALLET)
    _require_version(wallet.version, query)
    etag = f'"{wallet.version}"'
    headers = [(b"etag", etag.encode()), *await _headers(request, wallet_id)]
    if _matches(known, etag):
        return PreparedResponse(b"", 304, headers)
    return _json(ENCODER.encode(wallet), *headers)


def _seen_by(if_none_match: str) -> int:
    """The client's latest version: the response must not be older."""
    return max(map(int, _OUR_ETAG.findall(if_none_match)), default=0)


def _matches(if_none_match: str, etag: str) -> bool:
    candidates = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in candidates or etag in candidates


async def find_wallets(request: Request) -> Response:
    """The wallet with a reference_id, in a list of one; an empty list if there is none."""
    query = _query_of(_find_query, request)
    wallet = await dependencies_of(request).queries.wallet_by_reference(
        query.reference_id, min_version=query.min_version, strong=query.is_strong
    )
    if wallet is not None:
        _require_version(wallet.version, query)
    found = WalletList(items=[wallet] if wallet is not None else [])
    headers = await _headers(request, wallet.id) if wallet is not None else [_NO_CACHE]
    return _json(ENCODER.encode(found), *headers)


async def get_transfer(request: Request) -> Response:
    """A transfer of a wallet."""
    wallet_id, transfer_id = wallet_id_of(request), transfer_id_of(request)
    query = _query_of(_fresh_query, request)
    found = await dependencies_of(request).queries.transfer(
        wallet_id, transfer_id, min_version=query.min_version, strong=query.is_strong
    )
    if found is not None:
        _require_version(found.wallet_version, query)
    if found is None or found.transfer is None:
        raise await _not_found(request, wallet_id, _NO_TRANSFER)
    return _json(ENCODER.encode(found.transfer), *await _headers(request, wallet_id))


async def list_transfers(request: Request) -> Response:
    """A wallet's transfers, newest first, a page at a time."""
    wallet_id = wallet_id_of(request)
    query = _query_of(_transfer_query, request)
    try:
        page = await dependencies_of(request).queries.transfers(
            wallet_id,
            TransferFilter(status=query.status, type=query.type),
            limit=query.limit,
            cursor=query.cursor,
            min_version=query.min_version,
            strong=query.is_strong,
        )
    except CursorError:
        raise validation_problem(
            FieldError(
                pointer="#query/cursor", detail="send the next_cursor of a page of this list"
            )
        ) from None
    if page is None:
        raise await _not_found(request, wallet_id, _NO_WALLET)
    _require_version(page.wallet_version, query)
    return _json(ENCODER.encode(page), *await _headers(request, wallet_id))


_NO_WALLET: Final = ("wallet_not_found", "There is no wallet with this id.")
_NO_TRANSFER: Final = ("transfer_not_found", "This wallet has no transfer with this id.")

_NO_CACHE: Final = (b"cache-control", b"no-cache")
"""Caches must revalidate: balances change."""

_FORKED: Final = (b"wallet-history", b"forked")
"""The database has lost some of the wallet's latest events, and recovery is still to come."""


async def _headers(request: Request, wallet_id: WalletId) -> list[tuple[bytes, bytes]]:
    forked = await dependencies_of(request).queries.is_forked(wallet_id)
    return [_NO_CACHE, _FORKED] if forked else [_NO_CACHE]


async def _not_found(request: Request, wallet_id: WalletId, what: tuple[str, str]) -> ProblemError:
    """``what`` is missing, or lost: then nobody knows yet whether it exists."""
    if await dependencies_of(request).queries.is_forked(wallet_id, strong=True):
        return ProblemError(
            "history_forked",
            "The database has lost some of this wallet's latest writes, and this may be one of "
            "them. The operator decides what becomes of them.",
        )
    return ProblemError(*what)


def _json(body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    length = (b"content-length", str(len(body)).encode())
    return PreparedResponse(body, 200, [(b"content-type", b"application/json"), length, *headers])
