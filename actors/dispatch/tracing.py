"""The dispatcher's spans. Called only where `tracing.enabled`."""

from collections.abc import Awaitable, Callable

import msgspec

from actors.rpc.messages import RequestResult
from runtime import tracing
from wallet.commands import CommandRequest


async def submit_traced(
    submit: Callable[[CommandRequest], Awaitable[RequestResult]], submission: CommandRequest
) -> RequestResult:
    """Submit below the current request's span, if that is sampled."""
    from opentelemetry.trace import get_current_span

    parent = tracing.traceparent_of(get_current_span())
    if parent is None:
        return await submit(submission)
    about: dict[str, str | int] = {
        "wallet.id": submission.wallet_id,
        "wallet.commands": len(submission.items),
    }
    span = tracing.start_span("dispatch", parent, "CLIENT", about)
    try:
        trace = tracing.traceparent_of(span)
        return await submit(msgspec.structs.replace(submission, traceparent=trace))
    finally:
        span.end()
