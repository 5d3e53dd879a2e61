"""OpenAPI specification of the routes that look back."""

from typing import Final

from serve_app.openapi.route_spec import (
    FRESHNESS,
    PAGE_LIMIT,
    READ_PROBLEMS,
    ResponseSpec,
    RouteSpec,
    query,
    version_schema,
)
from serve_app.openapi.shared_components import shared
from serve_app.routes import journal
from wallet.journal_views import JournalPageView

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
)
