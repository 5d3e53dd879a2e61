"""OpenAPI specification of the routes that look back."""

from typing import Final

from serve_app.openapi.parameters import PAGE_LIMIT, time, version_schema
from serve_app.openapi.route_spec import (
    FRESHNESS,
    READ_PROBLEMS,
    ResponseSpec,
    RouteSpec,
    query,
)
from serve_app.openapi.shared_components import shared
from serve_app.routes import journal, statements
from wallet.journal_views import JournalPageView
from wallet.statement import StatementView

HISTORY_ROUTES: Final = (
    RouteSpec(
        method="GET",
        path="/v1/wallet/{wallet_id}/events",
        endpoint=journal.list_events,
        tag="wallets",
        summary="Read a wallet's journal",
        description="Every event of the wallet, as it was published, with the balances after it "
        "and the API key that made it. It is read from the committed state, whatever `consistency` "
        "says. To follow a wallet, go on with `after_version` and the last version that you have.",
        answers={200: ResponseSpec(what="A page of events.", model=JournalPageView)},
        problems=("wallet_not_found", *READ_PROBLEMS),
        parameters=(
            query("after_version", "Only events after this version.", version_schema(0)),
            query("before_version", "Only events before this version.", version_schema(1)),
            query("order", "`asc`: oldest first. `desc`: newest first.", shared("Order")),
            PAGE_LIMIT,
            *FRESHNESS,
        ),
    ),
    RouteSpec(
        method="GET",
        path="/v1/wallet/{wallet_id}/statement",
        endpoint=statements.get_statement,
        tag="wallets",
        summary="A wallet's statement, as JSON or CSV",
        description="The balances before the first entry, every event that changed the balance or "
        "what is pending, and the balances after the last. Streamed, of any length. A body that "
        "does not end with `closing` is not complete: the connection broke. In CSV, references "
        "that a spreadsheet would execute have an apostrophe before them.",
        answers={
            200: ResponseSpec(
                what="The statement.", model=StatementView, other_media=(statements.CSV,)
            )
        },
        problems=("wallet_not_found", "not_acceptable", "overloaded", *READ_PROBLEMS),
        parameters=(
            time("from", "Only events at this time or later; default: all."),
            time("to", "Only events before this time; default: all until now."),
            *FRESHNESS,
        ),
    ),
)
