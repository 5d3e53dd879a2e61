"""The table of metrics in specification/metrics.md, generated from the catalogue."""

from runtime.metrics.catalogue import CATALOGUE, MetricKind


def metrics_table() -> str:
    """Every metric as a Markdown table, under its name in Prometheus."""
    lines = ["| metric | kind | labels | description |", "|---|---|---|---|"]
    for name, metric in CATALOGUE.items():
        shown = f"`ray_{name}`" + (" …" if metric.kind is MetricKind.HISTOGRAM else "")
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| {shown} | {metric.kind} | {labels} | {metric.description} |")
    return "\n".join(lines)
