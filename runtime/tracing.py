"""Tracing with OpenTelemetry: off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` names a collector.

The SDK reads its own variables (``OTEL_TRACES_SAMPLER``, ``OTEL_TRACES_SAMPLER_ARG``,
``OTEL_EXPORTER_OTLP_HEADERS`` …). If tracing is off, the SDK is not imported: callers check one
attribute, ``tracing.enabled``. A request that isn't sampled passes no trace context on, so its
command, its batch and its events cost the same as without tracing.

A trace: the request (server) → its dispatch (client) → the publish (producer) → the projection
(consumer). A batch serves many requests, so it is a separate trace with a link to each dispatch;
its child spans are the load, the decision and the commit in Postgres.
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


def configure_tracing(component: str) -> None:
    """Enable tracing in this process if the environment names a collector.

    ``component``: the suffix of ``service.name``.
    """
    global enabled, _tracer, _provider
    if enabled or not os.environ.get(ENDPOINT_VARIABLE):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"wallet-{component}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider, _tracer = provider, provider.get_tracer("wallet")
    enabled = True


def shut_down() -> None:
    """Flush the remaining spans and disable tracing."""
    global enabled, _tracer
    if _provider is not None:
        _provider.shutdown()
    enabled, _tracer = False, None


def _require_tracer() -> "Tracer":
    assert _tracer is not None, "callers check `enabled` first"
    return _tracer


def context_of(traceparent: str | None) -> "Context":
    """The context of a ``traceparent``; a new one if there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        return Context()
    return TraceContextTextMapPropagator().extract({HEADER: traceparent}, Context())


def traceparent_of(span: "Span") -> str | None:
    """The W3C header of a sampled span; None if it isn't sampled."""
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def trace_id_of(span: "Span") -> str:
    return f"{span.get_span_context().trace_id:032x}"


def _kind(name: str) -> "SpanKind":
    from opentelemetry.trace import SpanKind

    return SpanKind[name]


def start_span(
    name: str, parent: str | None, kind: str, attributes: Mapping[str, str | int] | None = None
) -> "Span":
    """Start a span; the caller ends it. ``parent``: a ``traceparent``."""
    return _require_tracer().start_span(
        name, context_of(parent), kind=_kind(kind), attributes=dict(attributes or {})
    )


def record_batch_span(
    traces: Iterable[str],
    stage_ends: Sequence[tuple[str, float]],
    attributes: Mapping[str, str | int],
) -> None:
    """Record a finished batch: one span with a link to each request's, and a child per stage.

    ``stage_ends``: the batch's start, then each stage's name and its end, as ``perf_counter``.
    """
    from opentelemetry.trace import Link, get_current_span, set_span_in_context

    wall_ns = time_ns() - int(perf_counter() * 1e9)
    at = [wall_ns + int(mark * 1e9) for _, mark in stage_ends]
    links = [Link(get_current_span(context_of(trace)).get_span_context()) for trace in traces]
    batch = _require_tracer().start_span(
        "batch", context_of(None), links=links, attributes=dict(attributes), start_time=at[0]
    )
    context = set_span_in_context(batch)
    for index, (name, _) in enumerate(stage_ends[1:], start=1):
        kind = _kind("CLIENT" if name.startswith("postgres") else "INTERNAL")
        stage = _require_tracer().start_span(name, context, kind=kind, start_time=at[index - 1])
        stage.end(at[index])
    batch.end(at[-1])
