"""Read routes: from the projections, or from the write side's tables on request."""

import re
from typing import Final

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from projections.transfer_list import CursorError
from serve_app.dependencies import dependencies_of
from serve_app.http.problems import FieldError, validation_problem
from serve_app.http.requests import transfer_id_of, wallet_id_of
from serve_app.routes.list_queries import TransferQuery
from serve_app.routes.past_wallets import WalletQuery, past_wallet
from serve_app.routes.read_requests import (
    NO_TRANSFER,
    NO_WALLET,
    FreshQuery,
    json_response,
    not_found,
    parsed_query,
    read_headers,
    require_version,
    sent_etags,
    wallet_response,
)
from wallet.representation import ENCODER

_OUR_ETAG: Final = re.compile(r'"([0-9]{1,19})"')


_wallet_query = TypeAdapter(WalletQuery)
_fresh_query = TypeAdapter(FreshQuery)
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
            query.as_filter(),
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
