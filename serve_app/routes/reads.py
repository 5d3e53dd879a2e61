"""The routes that only read: from the projections, and from the write side's rows if asked."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from projections.queries import CursorError, TransferFilter
from serve_app.problems import FieldError, Problem, validation_problem
from serve_app.replies import RawResponse
from serve_app.requests import transfer_id_of, wallet_id_of
from serve_app.services import services_of
from wallet.contract import (
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    REFERENCE_ID_MAX,
    TEXT_PATTERN,
)
from wallet.representation import ENCODER

VERSION_MAX = 2**63 - 1

CURSOR_PATTERN = r"^[A-Za-z0-9_-]{11}$"
"""Clients only ever pass one on; what doesn't look like one was never ours."""

QueryT = TypeVar("QueryT", bound=BaseModel)


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WalletQuery(_Query):
    """How fresh the answer must be."""

    min_version: Annotated[int, Field(ge=0, le=VERSION_MAX)] = 0
    consistency: Literal["eventual", "strong"] = "eventual"


class FindQuery(_Query):
    """Which wallets to find."""

    reference_id: Annotated[
        str, StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN)
    ]


class TransferQuery(_Query):
    """Which transfers of a wallet, and which page of them."""

    status: Literal["pending", "completed", "failed"] | None = None
    type: Literal["debit", "credit"] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT_MAX)] = PAGE_LIMIT_DEFAULT
    cursor: Annotated[str, StringConstraints(pattern=CURSOR_PATTERN)] | None = None


_wallet_query = TypeAdapter(WalletQuery)
_find_query = TypeAdapter(FindQuery)
_transfer_query = TypeAdapter(TransferQuery)
_no_query = TypeAdapter(_Query)


def _query_of(adapter: TypeAdapter[QueryT], request: Request) -> QueryT:
    try:
        return adapter.validate_python(dict(request.query_params))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise validation_problem(
            *(
                FieldError(
                    pointer=f"#query/{found['loc'][0]}", detail=_hint(found["type"], found["msg"])
                )
                for found in details
            )
        ) from None


def _hint(kind: str, message: str) -> str:
    return "this parameter is not known: leave it out" if kind == "extra_forbidden" else message


async def get_wallet(request: Request) -> Response:
    """A wallet with its balances."""
    wallet_id = wallet_id_of(request)
    query = _query_of(_wallet_query, request)
    wallet = await services_of(request).queries.wallet(
        wallet_id, min_version=query.min_version, strong=query.consistency == "strong"
    )
    if wallet is None:
        raise Problem("wallet_not_found", "There is no wallet with this id.")
    if wallet.version < query.min_version:
        raise Problem(
            "version_not_reached",
            f"The wallet is at version {wallet.version}, min_version is {query.min_version}.",
        )
    etag = f'"{wallet.version}"'.encode()
    if _matches(request.headers.get("if-none-match"), etag):
        return RawResponse(b"", 304, [(b"etag", etag)])
    return _json(ENCODER.encode(wallet), (b"etag", etag), (b"cache-control", b"no-cache"))


def _matches(if_none_match: str | None, etag: bytes) -> bool:
    if if_none_match is None:
        return False
    candidates = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in candidates or etag.decode() in candidates


async def find_wallets(request: Request) -> Response:
    """The wallet with a reference_id, in a list of one; an empty list if there is none."""
    query = _query_of(_find_query, request)
    wallet = await services_of(request).queries.wallet_by_reference(query.reference_id)
    return _json(ENCODER.encode({"items": [] if wallet is None else [wallet]}))


async def get_transfer(request: Request) -> Response:
    """A transfer of a wallet."""
    wallet_id, transfer_id = wallet_id_of(request), transfer_id_of(request)
    _query_of(_no_query, request)
    transfer = await services_of(request).queries.transfer(wallet_id, transfer_id)
    if transfer is None:
        raise Problem("transfer_not_found", "This wallet has no transfer with this id.")
    return _json(ENCODER.encode(transfer))


async def list_transfers(request: Request) -> Response:
    """A wallet's transfers, newest first, a page at a time."""
    wallet_id = wallet_id_of(request)
    query = _query_of(_transfer_query, request)
    wanted = TransferFilter(status=query.status, type=query.type)
    try:
        page = await services_of(request).queries.transfers(
            wallet_id, wanted, limit=query.limit, cursor=query.cursor
        )
    except CursorError:
        raise validation_problem(
            FieldError(pointer="#query/cursor", detail="send a next_cursor of this list")
        ) from None
    if page is None:
        raise Problem("wallet_not_found", "There is no wallet with this id.")
    return _json(ENCODER.encode(page))


def _json(body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    length = (b"content-length", str(len(body)).encode())
    return RawResponse(body, 200, [(b"content-type", b"application/json"), length, *headers])
