"""OpenTelemetry spans of the dispatcher. Called only if `tracing.enabled`."""

from collections.abc import Awaitable, Callable

import msgspec

from actors.rpc.messages import RequestResult
from runtime import tracing
from wallet.commands import CommandRequest


async def submit_traced(
    submit: Callable[[CommandRequest], Awaitable[RequestResult]], request: CommandRequest
) -> RequestResult:
    """Submit with a child span of the current one, if that is sampled."""
    from opentelemetry.trace import get_current_span

    parent = tracing.traceparent_of(get_current_span())
    if parent is None:
        return await submit(request)
    attributes: dict[str, str | int] = {
        "wallet.id": request.wallet_id,
        "wallet.commands": len(request.items),
    }
    span = tracing.start_span("dispatch", parent, "CLIENT", attributes)
    try:
        trace = tracing.traceparent_of(span)
        return await submit(msgspec.structs.replace(request, traceparent=trace))
    finally:
        span.end()
