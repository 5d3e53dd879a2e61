"""The HTTP application: routes, documentation, and error handlers."""

from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route

from runtime.version import VERSION
from serve_app.asgi.cross_origin import origins_of
from serve_app.asgi.endpoint import as_asgi, problem_from_exception
from serve_app.asgi.router import FastPathApplication, RouteTable
from serve_app.dependencies import Dependencies
from serve_app.http.problems import ProblemError, problem_response
from serve_app.http.requests import request_id_of
from serve_app.openapi import document, version_3_0

OPENAPI_3_0: Final = "/openapi-3.0.json"

_table = RouteTable(
    (method, route.path, as_asgi(route.endpoint, route.needs, route.allowed))
    for route in document.ROUTES
    for method in route.methods
)


def create_app(services: Dependencies | None = None) -> FastAPI:
    """The application. Without ``services`` it can only produce its OpenAPI document."""
    app: FastAPI = FastAPIOffline(
        title="Wallet service",
        version=VERSION,
        description=document.api_description(services),
        openapi_tags=document.TAGS,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    app.add_route(OPENAPI_3_0, _openapi_3_0, methods=["GET"], include_in_schema=False)
    for page in app.router.routes:
        if isinstance(page, APIRoute) and page.methods == {"GET"}:
            page.methods = {"GET", "HEAD"}  # As in Starlette's own routes.
    for route in document.ROUTES:
        app.router.routes.extend(route.as_routes())
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unhandled_error)
    app.openapi = lambda: document.openapi_of(app)  # type: ignore[method-assign]
    return app


async def _openapi_3_0(request: Request) -> Response:
    app: FastAPI = request.app
    return JSONResponse(version_3_0.rendered(app.openapi()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = ", ".join(_methods_for(request) or ("GET", "HEAD"))
        problem = ProblemError(
            "method_not_allowed",
            f"This route does not support {request.method}; supported methods: {allowed}.",
            headers={"Allow": allowed},
        )
    else:
        problem = ProblemError("not_found", f"There is no route {request.url.path}.")
    return problem_response(problem, request_id_of(request))


def _methods_for(request: Request) -> list[str]:
    """All methods of the path. Several routes may match; those with the fewest parameters win."""
    routes: list[BaseRoute] = request.app.router.routes
    matching = [
        route
        for route in routes
        if isinstance(route, Route | APIRoute) and route.matches(request.scope)[0] is not Match.NONE
    ]
    fewest = min((len(route.param_convertors) for route in matching), default=0)
    methods = [
        route.methods or set() for route in matching if len(route.param_convertors) == fewest
    ]
    return sorted(set().union(*methods))


async def _unhandled_error(request: Request, error: Exception) -> Response:
    return problem_response(problem_from_exception(error, request), request_id_of(request))


def create_application(services: Dependencies) -> FastPathApplication:
    """The ingress application: the API's routes, with `create_app` as the fallback."""
    origins = origins_of(services.settings.cors_origins)
    return FastPathApplication(_table, create_app(services), origins)
