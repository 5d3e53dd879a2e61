"""Tracing with OpenTelemetry: off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` names a collector.

The SDK reads its own variables (``OTEL_TRACES_SAMPLER``, ``OTEL_TRACES_SAMPLER_ARG``,
``OTEL_EXPORTER_OTLP_HEADERS`` …). Off, nothing of it is imported: callers ask ``tracing.on``, one
attribute, and do no more. A request that isn't sampled leaves no trace context anywhere, so that
its command, its batch and its events cost what they cost without tracing.

A trace: the request (server) → its dispatch (client) → the publish (producer) → the projection
(consumer). A batch serves many requests, so it is a trace of its own with a link to each of their
dispatches; below it are loading, deciding and the commit in Postgres.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

ENDPOINT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"

HEADER: Final = "traceparent"

enabled: bool = False
"""Whether this process traces."""

_tracer: "Tracer | None" = None
_provider: "TracerProvider | None" = None


def configure_tracing(part: str) -> None:
    """Turn tracing on in this process, if the environment asks for it. ``part``: what it is."""
    global enabled, _tracer, _provider
    if enabled or not os.environ.get(ENDPOINT_VARIABLE):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"wallet-{part}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider, _tracer = provider, provider.get_tracer("wallet")
    enabled = True


def shut_down() -> None:
    """Send what is left, and turn tracing off."""
    global enabled, _tracer
    if _provider is not None:
        _provider.shutdown()
    enabled, _tracer = False, None


def _require_tracer() -> "Tracer":
    assert _tracer is not None, "callers look at `on` first"
    return _tracer


def context_of(traceparent: str | None) -> "Context":
    """The context that a ``traceparent`` names; a fresh one if it is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        return Context()
    return TraceContextTextMapPropagator().extract({HEADER: traceparent}, Context())


def traceparent_of(span: "Span") -> str | None:
    """The W3C header of a span that is recorded; None if it isn't sampled."""
    found = span.get_span_context()
    if not found.trace_flags.sampled:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-01"


def trace_id_of(span: "Span") -> str:
    return f"{span.get_span_context().trace_id:032x}"


def _kind(name: str) -> "SpanKind":
    from opentelemetry.trace import SpanKind

    return SpanKind[name]


def start_span(
    name: str, parent: str | None, kind: str, attributes: Mapping[str, str | int] | None = None
) -> "Span":
    """A span that its caller ends. ``parent``: a ``traceparent``."""
    return _require_tracer().start_span(
        name, context_of(parent), kind=_kind(kind), attributes=dict(attributes or {})
    )


def record_batch_span(
    traces: Iterable[str], marks: Sequence[tuple[str, float]], attributes: Mapping[str, str | int]
) -> None:
    """A batch that has been answered: one span, linked to each request's, and its stages below.

    ``marks``: the batch's beginning, then each stage's name and its end, as ``perf_counter``.
    """
    from opentelemetry.trace import Link, get_current_span, set_span_in_context

    wall_ns = time_ns() - int(perf_counter() * 1e9)
    at = [wall_ns + int(mark * 1e9) for _, mark in marks]
    links = [Link(get_current_span(context_of(trace)).get_span_context()) for trace in traces]
    whole = _require_tracer().start_span(
        "batch", context_of(None), links=links, attributes=dict(attributes), start_time=at[0]
    )
    inside = set_span_in_context(whole)
    for place, (name, _) in enumerate(marks[1:], start=1):
        kind = _kind("CLIENT" if name.startswith("postgres") else "INTERNAL")
        stage = _require_tracer().start_span(name, inside, kind=kind, start_time=at[place - 1])
        stage.end(at[place])
    whole.end(at[-1])
