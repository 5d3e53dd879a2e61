"""The table of metrics, printed from the catalogue into specification/metrics.md.

python -m telemetry.documents
"""

from pathlib import Path
from typing import Final

from telemetry.catalogue import CATALOGUE, Kind
from wallet.documents import with_table

FILE: Final = Path(__file__).parents[1] / "specification/metrics.md"


def metrics_table() -> str:
    """Every metric as a Markdown table, under the name that Prometheus sees."""
    lines = ["| metric | kind | told apart by | what it is |", "|---|---|---|---|"]
    for name, metric in CATALOGUE.items():
        shown = f"`ray_{name}`" + (" …" if metric.kind is Kind.HISTOGRAM else "")
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| {shown} | {metric.kind} | {labels} | {metric.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    document = FILE.read_text(encoding="utf-8")
    FILE.write_text(with_table(document, "metrics", metrics_table()), encoding="utf-8")
