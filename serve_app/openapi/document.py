"""The API's description of itself: every route, every answer, every problem.

`ROUTES` is the table of routes; the OpenAPI document (/openapi.json,
``specification/openapi.json``) is made from it, from the models that validate requests and encode
responses (`serve_app.openapi.components`), and from `serve_app.openapi.examples`.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serve_app.dependencies import Dependencies
from serve_app.http import models
from serve_app.openapi import examples, security
from serve_app.openapi.components import component_schemas
from serve_app.openapi.route_spec import (
    FRESHNESS,
    IF_NONE_MATCH,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    RequestBodySpec,
    ResponseSpec,
    RouteSpec,
    links,
    query,
)
from serve_app.openapi.transfer_routes import TRANSFER_ROUTES
from serve_app.routes import reads, service, writes
from wallet.api_limits import REFERENCE_ID_MAX, TEXT_PATTERN
from wallet.representation import WalletView

API_VERSION: Final = "1.0.0"

DESCRIPTION: Final = """
Wallets for people who move money.

**Debit puts money INTO a wallet, credit takes money OUT of it** (accounting terms, and the reverse
of what some products use).

A transfer is created `pending` (hold now, complete or revert later) or `completed` (done at
once). Amounts are decimal strings with the currency's decimals: `"10.50"`. Every POST takes an
`Idempotency-Key`; repeating a request under its key gives the same answer and moves nothing twice.
Every answer to a write tells the wallet's balances and version after it; pass that version as
`min_version` to read your own write. Every error is a problem document (RFC 9457) with a
stable `code`, explained at `/problems/{code}`.

HEAD works wherever GET does. Nothing that would change the meaning of a request is ignored: an
unknown or repeated query parameter, a field that is unknown or there twice, a repeated
`Idempotency-Key`, a precondition that the route does not describe (`If-Match`) are 422; a
`Content-Encoding` other than `identity` is 415.
"""

TAGS: Final = [
    {"name": "wallets", "description": "Open and read wallets."},
    {
        "name": "transfers",
        "description": "Put money in (debit), take money out (credit), settle what is pending.",
    },
    {"name": "service", "description": "Health, readiness, and what problems mean."},
]


_NEXT: Final = links(
    {"wallet_id": "$response.body#/id"},
    get_wallet="Read it.",
    debit_wallet="Put money INTO it.",
    credit_wallet="Take money OUT of it.",
    wallet_batch="Do several things with it.",
    list_transfers="List what moved.",
)

_PART: Final = "(postgres|nats|shards|projections)"
_PARTS_PATTERN: Final = f"^{_PART}(,{_PART})*$"

ROUTES: Final = (
    *TRANSFER_ROUTES,
    RouteSpec(
        method="POST",
        path="/v1/wallet",
        endpoint=writes.create_wallet,
        tag="wallets",
        summary="Open a wallet",
        description="A wallet has one currency, USD if none is sent. With a reference_id, a second "
        "wallet under the same one is refused.",
        answers={
            201: ResponseSpec(
                what="The wallet, with no money in it.",
                model=WalletView,
                example=examples.NEW_WALLET,
                links=_NEXT,
            )
        },
        problems=("reference_id_taken", *WRITE_PROBLEMS),
        body=RequestBodySpec(
            model=models.CreateWalletBody,
            example={"reference_id": "customer-17", "currency": "USD"},
        ),
    ),
    RouteSpec(
        method="GET",
        path="/v1/wallet/{wallet_id}",
        endpoint=reads.get_wallet,
        tag="wallets",
        summary="Read a wallet",
        description="From the projection, which follows the writes within milliseconds. The ETag "
        "is the version; `If-None-Match` is honoured.",
        answers={
            200: ResponseSpec(what="The wallet.", model=WalletView),
            304: ResponseSpec(what="Not changed since."),
        },
        etag=True,
        problems=("wallet_not_found", *READ_PROBLEMS),
        parameters=(*FRESHNESS, IF_NONE_MATCH),
    ),
    RouteSpec(
        method="GET",
        path="/v1/wallet",
        endpoint=reads.find_wallets,
        tag="wallets",
        summary="Find a wallet by its reference_id",
        description="A list, of one wallet at most: reference_ids of wallets are unique.",
        answers={
            200: ResponseSpec(what="A list of one wallet, or of none.", model=models.WalletList)
        },
        problems=READ_PROBLEMS,
        parameters=(
            query(
                "reference_id",
                "The reference_id that the wallet was opened with.",
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": REFERENCE_ID_MAX,
                    "pattern": TEXT_PATTERN,
                },
                required=True,
            ),
            *FRESHNESS,
        ),
    ),
    RouteSpec(
        method="GET",
        path="/healthz",
        endpoint=service.healthz,
        tag="service",
        summary="Is this process alive",
        description="Says nothing about what the process needs; see /readyz.",
        answers={200: ResponseSpec(what="It is.", model=models.Health)},
    ),
    RouteSpec(
        method="GET",
        path="/readyz",
        endpoint=service.readyz,
        tag="service",
        summary="Is everything ready",
        description="What this replica can do now, part by part. `postgres`: reads are answered. "
        "`shards`: every wallet's command reaches a shard whose writes go through. `nats` and "
        "`projections`: events are published, and read. With `only` some of them alone: writing "
        "and reading need no others than `postgres,shards`.",
        answers={
            200: ResponseSpec(what="All of it is ready.", model=models.Readiness),
            503: ResponseSpec(
                what="Something is not; the body says what.",
                model=models.Readiness,
                example=examples.NOT_READY,
            ),
        },
        problems=("validation_error",),
        parameters=(
            query(
                "only",
                "Names of components, separated by commas: ask for these alone.",
                {"type": "string", "pattern": _PARTS_PATTERN},
            ),
        ),
    ),
    RouteSpec(
        method="GET",
        path="/problems",
        endpoint=service.list_problems,
        tag="service",
        summary="All problems",
        description="Every code that an error of this service can have.",
        answers={
            200: ResponseSpec(
                what="Every code, with its status, title and remedy.",
                model=models.ProblemKindList,
            )
        },
    ),
    RouteSpec(
        method="GET",
        path="/problems/{code}",
        endpoint=service.explain_problem,
        tag="service",
        summary="A problem explained",
        description="What stands at a problem's `type`; a page for browsers.",
        answers={
            200: ResponseSpec(
                what="What it means and what to do.",
                model=models.ProblemKind,
                other_media=("text/html",),
            )
        },
        problems=("problem_not_found",),
    ),
)


def api_description(services: Dependencies | None) -> str:
    """The description, with what holds of keys for this service (none: as it should run)."""
    if services is None or services.gate is not None:
        return DESCRIPTION + security.AUTH_REQUIRED
    if services.is_exposed_unauthenticated:
        return security.UNAUTHENTICATED_WARNING + DESCRIPTION
    return DESCRIPTION + security.AUTH_DISABLED


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of ``app``, made once."""
    if app.openapi_schema is None:
        services: Dependencies | None = app.state.services
        asks_for_keys = services is None or services.gate is not None
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            tags=app.openapi_tags,
            servers=[{"url": "/", "description": "The service that gave you this document."}],
            routes=app.routes,
        )
        document["security"] = []
        document["components"] = {
            "schemas": component_schemas(model for route in ROUTES for model in route.models)
        }
        if asks_for_keys:
            document["components"]["securitySchemes"] = security.SECURITY_SCHEMES
        for route in ROUTES:
            # Put in afterwards: FastAPI leaves every null out, also those of examples, and adds
            # an answer to invalid requests that isn't ours.
            document["paths"][route.path][route.method.lower()] |= route.operation(
                asks_for_keys=asks_for_keys
            )
        app.openapi_schema = document
    return app.openapi_schema
