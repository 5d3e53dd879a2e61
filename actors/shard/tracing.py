"""Where the write side leaves spans. Called only where `tracing.on`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from actors.journal.ports import Message
from actors.rpc.messages import RequestResult
from actors.shard.batch_timings import BatchTimes
from runtime import tracing
from wallet.commands import ClaimKey, CommandRequest, CreateWallet
from wallet.events import RecordedEvent, TransferChanged

if TYPE_CHECKING:
    from opentelemetry.trace import Span


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


def trace_batch(
    submissions: Sequence[CommandRequest], recorded: list[RecordedEvent], times: BatchTimes
) -> None:
    """Leave the batch's spans, and give each event the trace of the request that made it."""
    traced = [submission for submission in submissions if submission.traceparent is not None]
    if not traced:
        return
    tracing.record_batch_span(
        [str(submission.traceparent) for submission in traced],
        [
            ("", times.dequeued),
            ("load", times.loaded),
            ("decide", times.decided),
            ("postgres commit_batch", times.committed),
            ("reply", times.answered),
        ],
        {"wallet.requests": len(submissions), "wallet.events": len(recorded)},
    )
    traces = {made: submission.traceparent for submission in traced for made in _ids(submission)}
    for place, one in enumerate(recorded):
        event = one.event
        made = event.transfer.id if isinstance(event, TransferChanged) else event.wallet_id
        if made in traces:
            recorded[place] = msgspec.structs.replace(one, traceparent=traces[made])


def _ids(submission: CommandRequest) -> list[str]:
    """What the commands of ``submission`` make or change."""
    return [
        item.command.wallet_id
        if isinstance(item.command, CreateWallet)
        else item.command.transfer_id
        for item in submission.items
        if not isinstance(item.command, ClaimKey)
    ]


def start_publish_spans(messages: Sequence[Message]) -> tuple[Sequence[Message], list["Span"]]:
    """``messages`` with the traces of their publishing, and the spans to end after it."""
    spans: list[Span] = []
    outgoing: list[Message] = []
    for message in messages:
        if message.traceparent is None:
            outgoing.append(message)
            continue
        span = tracing.start_span(
            "publish", message.traceparent, "PRODUCER", {"event.id": message.id}
        )
        spans.append(span)
        outgoing.append(message._replace(traceparent=tracing.traceparent_of(span)))
    return outgoing, spans
