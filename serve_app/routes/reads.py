"""Read routes: from the projections, or from the write side's tables on request."""

import re
from typing import Annotated, Final, Literal

from pydantic import StringConstraints, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from projections.queries import CursorError, TransferFilter
from serve_app.dependencies import dependencies_of
from serve_app.http.models import WalletList
from serve_app.http.problems import FieldError, validation_problem
from serve_app.http.requests import transfer_id_of, wallet_id_of
from serve_app.routes.past_wallets import WalletQuery, past_wallet
from serve_app.routes.read_requests import (
    NO_CACHE,
    NO_TRANSFER,
    NO_WALLET,
    FreshQuery,
    PageQuery,
    json_response,
    not_found,
    parsed_query,
    read_headers,
    require_version,
    sent_etags,
    wallet_response,
)
from wallet.api_limits import REFERENCE_ID_MAX, TEXT_PATTERN
from wallet.representation import ENCODER

CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]{11}$"
"""Clients pass cursors back unchanged; anything else is rejected."""

_OUR_ETAG: Final = re.compile(r'"([0-9]{1,19})"')


class FindQuery(FreshQuery):
    """Query of the wallet search."""

    reference_id: Annotated[
        str, StringConstraints(min_length=1, max_length=REFERENCE_ID_MAX, pattern=TEXT_PATTERN)
    ]


class TransferQuery(PageQuery):
    """Filter and page of a transfer list."""

    status: Literal["pending", "completed", "failed"] | None = None
    type: Literal["debit", "credit"] | None = None
    cursor: Annotated[str, StringConstraints(pattern=CURSOR_PATTERN)] | None = None


_wallet_query = TypeAdapter(WalletQuery)
_fresh_query = TypeAdapter(FreshQuery)
_find_query = TypeAdapter(FindQuery)
_transfer_query = TypeAdapter(TransferQuery)


async def get_wallet(request: Request) -> Response:
    """A wallet with its balances: as it is, or as it was."""
    wallet_id = wallet_id_of(request)
    query = parsed_query(_wallet_query, request)
    if query.is_past:
        return await past_wallet(request, wallet_id, query)
    seen = _seen_by(sent_etags(request))
    wallet = await dependencies_of(request).queries.wallet(
        wallet_id, min_version=max(query.min_version, seen), strong=query.is_strong
    )
    if wallet is None:
        raise await not_found(request, wallet_id, NO_WALLET)
    require_version(wallet.version, query)
    return await wallet_response(request, wallet)


def _seen_by(if_none_match: str) -> int:
    """The client's latest version: the response must not be older."""
    return max(map(int, _OUR_ETAG.findall(if_none_match)), default=0)


async def find_wallets(request: Request) -> Response:
    """The wallet with a reference_id, in a list of one; an empty list if there is none."""
    query = parsed_query(_find_query, request)
    wallet = await dependencies_of(request).queries.wallet_by_reference(
        query.reference_id, min_version=query.min_version, strong=query.is_strong
    )
    if wallet is not None:
        require_version(wallet.version, query)
    found = WalletList(items=[wallet] if wallet is not None else [])
    headers = await read_headers(request, wallet.id) if wallet is not None else [NO_CACHE]
    return json_response(ENCODER.encode(found), *headers)


async def get_transfer(request: Request) -> Response:
    """A transfer of a wallet."""
    wallet_id, transfer_id = wallet_id_of(request), transfer_id_of(request)
    query = parsed_query(_fresh_query, request)
    found = await dependencies_of(request).queries.transfer(
        wallet_id, transfer_id, min_version=query.min_version, strong=query.is_strong
    )
    if found is not None:
        require_version(found.wallet_version, query)
    if found is None or found.transfer is None:
        raise await not_found(request, wallet_id, NO_TRANSFER)
    return json_response(ENCODER.encode(found.transfer), *await read_headers(request, wallet_id))


async def list_transfers(request: Request) -> Response:
    """A wallet's transfers, newest first, a page at a time."""
    wallet_id = wallet_id_of(request)
    query = parsed_query(_transfer_query, request)
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
        raise await not_found(request, wallet_id, NO_WALLET)
    require_version(page.wallet_version, query)
    return json_response(ENCODER.encode(page), *await read_headers(request, wallet_id))
