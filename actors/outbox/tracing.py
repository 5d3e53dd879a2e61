"""OpenTelemetry spans of the relay. Called only if `tracing.enabled`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.journal.ports import Message
from runtime import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


def start_publish_spans(messages: Sequence[Message]) -> tuple[Sequence[Message], list["Span"]]:
    """``messages`` with the traceparents of their publish spans, and the spans to end after it."""
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
