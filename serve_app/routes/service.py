"""Service routes: front page, health, readiness, explanations of problems."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serve_app.dependencies import dependencies_of
from serve_app.http.models import (
    Component,
    Health,
    NotHealthy,
    ProblemKind,
    ProblemKindList,
    Readiness,
    ServiceLinks,
)
from serve_app.http.problems import PROBLEM_TYPES, FieldError, ProblemError, validation_problem
from serve_app.routes import pages
from wallet.representation import ENCODER

_NATS_PORT: Final = 4222


async def front_page(request: Request) -> Response:
    """Where to go from here: HTML for browsers, JSON otherwise."""
    services = dependencies_of(request)
    # Addresses are for operators, unless everybody is trusted anyway.
    server = stream_server(services.settings.nats_url) if services.authenticator is None else None
    links = ServiceLinks(
        docs="/docs",
        openapi="/openapi.json",
        openapi_3_0="/openapi-3.0.json",
        problems="/problems",
        health="/healthz",
        readiness="/readyz",
        stream=services.settings.stream_name,
        stream_server=server,
    )
    return pages.front_page(links) if pages.wants_html(request) else _json(links)


def stream_server(url: str) -> str | None:
    """The first NATS server of ``url``, without the credentials in it; None: it can't be read."""
    try:
        parts = urlsplit(url.split(",")[0])
        host, port = parts.hostname, parts.port or _NATS_PORT
    except ValueError:
        return None
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host else None


async def healthz(request: Request) -> Response:
    """Whether a load balancer should use this node: 503 if this process reaches no shard.

    Known at once, from the connections' pings; nothing is called.
    """
    if dependencies_of(request).reaches_a_shard():
        return _json(Health(status="ok"))
    return _json(NotHealthy(status="no shard can be reached"), 503)


async def readyz(request: Request) -> Response:
    """Readiness by component: 200 if all are ready, else 503.

    ``?only=postgres,shards`` checks those only: writes and reads need no others.
    """
    services = dependencies_of(request)
    only = request.query_params.get("only")
    names = set(only.split(",")) if only is not None else set(services.probes)
    if not names <= set(services.probes):
        known = ", ".join(services.probes)
        raise validation_problem(
            FieldError(pointer="#query/only", detail=f"send some of {known}, separated by commas")
        )
    probes = {name: probe for name, probe in services.probes.items() if name in names}
    timeout_s = services.settings.ready_timeout_s
    found = await asyncio.gather(*(_probe(probe, timeout_s) for probe in probes.values()))
    components = dict(zip(probes, found, strict=True))
    ready = all(component.ready for component in found)
    if services.authenticator is not None and not await services.authenticator.is_allowed(
        request.scope, "admin"
    ):
        components = {name: _without_details(one) for name, one in components.items()}
    return _json(Readiness(ready=ready, components=components), 200 if ready else 503)


def _without_details(component: Component) -> Component:
    """Ready or not, without the reason: addresses and figures are for operators."""
    return Component(ready=component.ready, detail="ready" if component.ready else "not ready")


async def _probe(probe: Callable[[], Awaitable[Component]], timeout_s: float) -> Component:
    try:
        async with asyncio.timeout(timeout_s):
            return await probe()
    except TimeoutError:
        return Component(ready=False, detail=f"no response within {timeout_s:g} s")


async def list_problems(request: Request) -> Response:
    """All problem types of this service: HTML for browsers, JSON otherwise."""
    problems = [_problem_type_json(code) for code in PROBLEM_TYPES]
    if pages.wants_html(request):
        return pages.problem_list_page(problems)
    return _json(ProblemKindList(items=problems))


async def explain_problem(request: Request) -> Response:
    """Explain a problem type: HTML for browsers, JSON otherwise."""
    code = request.path_params["code"]
    if code not in PROBLEM_TYPES:
        raise ProblemError("problem_not_found", "There is no problem with this code.")
    explained = _problem_type_json(code)
    return pages.problem_page(explained) if pages.wants_html(request) else _json(explained)


def _problem_type_json(code: str) -> ProblemKind:
    kind = PROBLEM_TYPES[code]
    return ProblemKind(
        type=f"/problems/{code}",
        code=code,
        status=kind.status,
        title=kind.title,
        remedy=kind.remedy,
    )


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(ENCODER.encode(body), status, media_type="application/json")
