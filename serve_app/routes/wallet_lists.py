"""The list of wallets, and the wallet with a reference_id."""

from typing import Final

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from projections.transfer_list import CursorError
from serve_app.dependencies import dependencies_of
from serve_app.http.models import WalletList
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.routes.list_queries import WalletListQuery
from serve_app.routes.read_requests import (
    NO_CACHE,
    json_response,
    parsed_query,
    read_headers,
    require_version,
)
from wallet.representation import ENCODER

_query: Final = TypeAdapter(WalletListQuery)


async def find_wallets(request: Request) -> Response:
    """Wallets, newest first, a page at a time; with a reference_id, that one or none."""
    query = parsed_query(_query, request)
    if query.reference_id is not None:
        return await _by_reference(request, query, query.reference_id)
    if query.min_version:
        raise _refused("min_version", "send it with reference_id: each wallet has its own versions")
    try:
        page = await dependencies_of(request).queries.wallet_lists.page(
            query.as_filter(), limit=query.limit, cursor=query.cursor, strong=query.is_strong
        )
    except CursorError:
        raise _refused("cursor", "send the next_cursor of a page of this list") from None
    found = WalletList(items=page.wallets, next_cursor=page.next_cursor)
    return json_response(ENCODER.encode(found), NO_CACHE)


async def _by_reference(request: Request, query: WalletListQuery, reference_id: str) -> Response:
    wallet = await dependencies_of(request).queries.wallet_by_reference(
        reference_id, min_version=query.min_version, strong=query.is_strong
    )
    if wallet is not None:
        require_version(wallet.version, query)
    # There is no second page.
    is_listed = wallet is not None and query.as_filter().matches(wallet) and query.cursor is None
    found = WalletList(items=[wallet] if wallet is not None and is_listed else [], next_cursor=None)
    headers = await read_headers(request, wallet.id) if wallet is not None else [NO_CACHE]
    return json_response(ENCODER.encode(found), *headers)


def _refused(name: str, detail: str) -> ProblemError:
    return validation_problem(FieldError(pointer=f"#query/{name}", detail=detail))
