"""A request's span. Called only if `tracing.enabled`."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from runtime import tracing
from serve_app.http.problems import ProblemError
from serve_app.http.requests import request_id_of


async def run_in_span(
    endpoint: Callable[[Request], Awaitable[Response]], request: Request, route: str
) -> Response:
    """Run ``endpoint`` in a server span, a child of the client's if it sent a traceparent."""
    from opentelemetry.trace import Status, StatusCode, use_span

    span = tracing.start_span(route, request.headers.get(tracing.HEADER), "SERVER")
    if not span.is_recording():
        return await endpoint(request)
    request.scope.setdefault("state", {})["trace_id"] = tracing.trace_id_of(span)
    span.set_attributes(
        {
            "http.request.method": request.method,
            "http.route": route,
            "wallet.request_id": request_id_of(request),
        }
    )
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            response = await endpoint(request)
        except ProblemError as problem:
            span.set_attribute("wallet.problem", problem.code)
            raise
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        span.set_attribute("http.response.status_code", response.status_code)
        return response
