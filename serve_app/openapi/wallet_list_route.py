"""OpenAPI specification of the list of wallets."""

from typing import Final

from serve_app.http import models
from serve_app.openapi.parameters import CREATED, METADATA_FILTER, PAGE_LIMIT, REFERENCE_SCHEMA
from serve_app.openapi.route_spec import (
    FRESHNESS,
    READ_PROBLEMS,
    ResponseSpec,
    RouteSpec,
    query,
)
from serve_app.openapi.shared_components import shared
from serve_app.routes import wallet_lists
from serve_app.routes.list_queries import WALLET_CURSOR_PATTERN
from wallet.currencies import CURRENCY_PATTERN

WALLET_LIST_ROUTE: Final = RouteSpec(
    method="GET",
    path="/v1/wallet",
    endpoint=wallet_lists.find_wallets,
    tag="wallets",
    summary="List wallets, newest first, or find one by its reference_id",
    description="Pages are stable while new wallets arrive. Filters can be combined. A page looks "
    "at 20,000 wallets at most, so with filters it may have fewer than `limit`, or none: the list "
    "ends where next_cursor is null. `min_version` needs a `reference_id`.",
    answers={200: ResponseSpec(what="A page of wallets.", model=models.WalletList)},
    problems=READ_PROBLEMS,
    parameters=(
        query("reference_id", "Only the wallet with this reference_id.", REFERENCE_SCHEMA),
        query(
            "reference_id_prefix",
            "Only wallets whose reference_id begins with this.",
            REFERENCE_SCHEMA,
        ),
        query(
            "currency",
            "Only wallets in this currency.",
            {"type": "string", "pattern": CURRENCY_PATTERN},
        ),
        query("status", "Only wallets with this status.", shared("WalletStatus")),
        *CREATED,
        METADATA_FILTER,
        PAGE_LIMIT,
        query(
            "cursor",
            "next_cursor of the previous page.",
            {"type": "string", "pattern": WALLET_CURSOR_PATTERN},
        ),
        *FRESHNESS,
    ),
)
