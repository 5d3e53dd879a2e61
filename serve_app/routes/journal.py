"""Looking back: the journal of a wallet."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from actors.journal.postgres_reader import JournalRange
from serve_app.dependencies import dependencies_of
from serve_app.http.requests import wallet_id_of
from serve_app.routes.read_requests import (
    NO_WALLET,
    PageQuery,
    WholeNumber,
    json_response,
    not_found,
    parsed_query,
    read_headers,
    require_version,
)
from wallet.api_limits import VERSION_MAX
from wallet.journal_views import JournalPageView, journal_event_view
from wallet.representation import ENCODER


class JournalQuery(PageQuery):
    """Which events, and in which order. The bounds are exclusive."""

    after_version: Annotated[WholeNumber, Field(ge=0, le=VERSION_MAX)] = 0
    before_version: Annotated[WholeNumber, Field(ge=1, le=VERSION_MAX)] | None = None
    order: Literal["asc", "desc"] = "asc"


_journal_query = TypeAdapter(JournalQuery)


async def list_events(request: Request) -> Response:
    """A wallet's events, as they were published, a page at a time."""
    wallet_id = wallet_id_of(request)
    query = parsed_query(_journal_query, request)
    wanted = JournalRange(
        after=query.after_version,
        before=query.before_version,
        newest_first=query.order == "desc",
    )
    page = await dependencies_of(request).journal.events(wallet_id, wanted, limit=query.limit)
    if page is None:
        raise await not_found(request, wallet_id, NO_WALLET)
    require_version(page.wallet_version, query)
    shown = JournalPageView(
        items=[journal_event_view(recorded) for recorded in page.events],
        next_version=page.next_version,
        wallet_version=page.wallet_version,
    )
    return json_response(ENCODER.encode(shown), *await read_headers(request, wallet_id))
