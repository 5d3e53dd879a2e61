"""The OpenAPI document: all routes, responses and problems.

`ROUTES` is the table of routes; the OpenAPI document (/openapi.json,
``specification/openapi.json``) is generated from it, from the models of requests and
responses (`serve_app.openapi.components`), and from `serve_app.openapi.examples`.
`serve_app.openapi.version_3_0` renders it for generators that can't read OpenAPI 3.1.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serve_app.dependencies import Dependencies
from serve_app.http import models
from serve_app.openapi import examples, security
from serve_app.openapi.components import component_schemas
from serve_app.openapi.control_routes import CONTROL_ROUTES
from serve_app.openapi.history_routes import HISTORY_ROUTES
from serve_app.openapi.parameters import PAST
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
from serve_app.openapi.wallet_list_route import WALLET_LIST_ROUTE
from serve_app.routes import reads, service, writes
from wallet.representation import WalletView

DESCRIPTION: Final = """
Wallets and transfers over HTTP.

**Debit puts money INTO a wallet, credit takes money OUT of it** (accounting terms, and the reverse
of what some products use).

A transfer is created `pending` (complete or revert it later) or `completed` (takes effect
immediately). Amounts are decimal strings with the currency's decimals: `"10.50"`. A JSON integer is
accepted, too: a number of whole units. Leave out the fields that a request doesn't need; `null` for
a `reference_id`, `currency`, `scale`, `idempotency_key` or `reason` counts as left out.

Every write accepts an `Idempotency-Key`; repeating a request with its key returns the same response
and moves no money twice. The response to a write contains the wallet's balances and version after
it; pass that version as `min_version` to read your own write. Every error is a problem document
(RFC 9457) with a stable `code`, explained at `/problems/{code}`.

GET routes also support HEAD. Unsupported input is never ignored: unknown or repeated query
parameters, unknown or duplicate fields, a repeated `Idempotency-Key` header and undocumented
preconditions (`If-Match`) get 422; a `Content-Encoding` other than `identity` gets 415.
"""

TAGS: Final = [
    {"name": "wallets", "description": "Open, read, change, freeze and close wallets."},
    {
        "name": "transfers",
        "description": "Put money in (debit), take money out (credit), settle pending transfers.",
    },
    {"name": "service", "description": "Health, readiness, and explanations of problems."},
]


_NEXT: Final = links(
    {"wallet_id": "$response.body#/id"},
    get_wallet="Read the wallet.",
    debit_wallet="Put money INTO the wallet.",
    credit_wallet="Take money OUT of the wallet.",
    wallet_batch="Send several transfers and settlements.",
    list_transfers="List the wallet's transfers.",
)

_PART: Final = "(postgres|nats|shards|projections)"
_PARTS_PATTERN: Final = f"^{_PART}(,{_PART})*$"

ROUTES: Final = (
    *TRANSFER_ROUTES,
    *CONTROL_ROUTES,
    *HISTORY_ROUTES,
    WALLET_LIST_ROUTE,
    RouteSpec(
        method="POST",
        path="/v1/wallet",
        endpoint=writes.create_wallet,
        tag="wallets",
        summary="Open a wallet",
        description="A wallet has one currency, USD by default. A second wallet with the same "
        "reference_id is refused. An overdraft_limit needs the scope `admin`.",
        answers={
            201: ResponseSpec(
                what="The new, empty wallet.",
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
        description="Reads the projection, which follows writes within milliseconds. The ETag is "
        "the version; `If-None-Match` is supported. With `version` or `at`: the wallet as it was, "
        "from the journal, whatever `consistency` says. Before its creation there was none (404).",
        answers={
            200: ResponseSpec(what="The wallet.", model=WalletView),
            304: ResponseSpec(what="Not modified."),
        },
        etag=True,
        problems=("wallet_not_found", *READ_PROBLEMS),
        parameters=(*PAST, *FRESHNESS, IF_NONE_MATCH),
    ),
    RouteSpec(
        method="GET",
        path="/",
        endpoint=service.front_page,
        tag="service",
        summary="Front page",
        description="Links to the documentation, the problems, the checks and the event stream; "
        "HTML for browsers.",
        answers={
            200: ResponseSpec(
                what="The links.", model=models.ServiceLinks, other_media=("text/html",)
            )
        },
    ),
    RouteSpec(
        method="GET",
        path="/healthz",
        endpoint=service.healthz,
        tag="service",
        summary="Health of a node, for load balancers",
        description="Through a node's HAProxy: 503 while the node drains, reaches no shard or has "
        "no part of the service. Calls nothing; see /readyz for the components.",
        answers={
            200: ResponseSpec(what="Send requests here.", model=models.Health),
            503: ResponseSpec(what="Use another node.", model=models.NotHealthy),
        },
    ),
    RouteSpec(
        method="GET",
        path="/readyz",
        endpoint=service.readyz,
        tag="service",
        summary="Readiness",
        description="Readiness of each component. `postgres`: reads succeed. `shards`: commands of "
        "every wallet reach a shard whose writes succeed. `nats`: events are published. "
        "`projections`: events are consumed. `only` selects components: writes and reads need "
        "`postgres,shards` only.",
        answers={
            200: ResponseSpec(what="All components are ready.", model=models.Readiness),
            503: ResponseSpec(
                what="A component is not ready; see the body.",
                model=models.Readiness,
                example=examples.NOT_READY,
            ),
        },
        problems=("validation_error",),
        parameters=(
            query(
                "only",
                "Component names, separated by commas: check only these.",
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
        description="All problem codes of this service; HTML for browsers.",
        answers={
            200: ResponseSpec(
                what="All codes, with status, title and remedy.",
                model=models.ProblemKindList,
                other_media=("text/html",),
            )
        },
    ),
    RouteSpec(
        method="GET",
        path="/problems/{code}",
        endpoint=service.explain_problem,
        tag="service",
        summary="Explain a problem",
        description="The explanation that a problem's `type` links to; HTML for browsers.",
        answers={
            200: ResponseSpec(
                what="The problem type and its remedy.",
                model=models.ProblemKind,
                other_media=("text/html",),
            )
        },
        problems=("problem_not_found",),
    ),
)


def api_description(services: Dependencies | None) -> str:
    """The API description with this service's authentication; None: of services in general."""
    if services is None:
        return DESCRIPTION + security.AUTH_OPTIONAL
    if services.authenticator is not None:
        return DESCRIPTION + security.AUTH_REQUIRED
    if services.is_exposed_unauthenticated:
        return security.UNAUTHENTICATED_WARNING + DESCRIPTION
    return DESCRIPTION + security.AUTH_DISABLED


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of ``app``, generated once."""
    if app.openapi_schema is None:
        services: Dependencies | None = app.state.services
        auth = _auth_of(services)
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            tags=app.openapi_tags,
            servers=[{"url": "/", "description": "The service that returned this document."}],
            routes=app.routes,
        )
        document["security"] = []
        document["components"] = {
            "schemas": component_schemas(model for route in ROUTES for model in route.models)
        }
        if auth != "off":
            document["components"]["securitySchemes"] = security.SECURITY_SCHEMES
        for route in ROUTES:
            # Merged afterwards: FastAPI drops nulls, also those in examples, and adds a response
            # for invalid requests that this service doesn't use.
            document["paths"][route.path][route.method.lower()] |= route.operation(auth)
        app.openapi_schema = document
    return app.openapi_schema


def _auth_of(services: Dependencies | None) -> security.Auth:
    if services is None:
        return "optional"
    return "off" if services.authenticator is None else "required"
