"""The results in `bench/README.md`: a full run writes the text between the markers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.result_tables import Table, circumstances_of, tables_of

README: Final = Path(__file__).parent / "README.md"
BEGIN: Final = "<!-- results: begin (written by `make bench`) -->"
END: Final = "<!-- results: end -->"


def update(document: Mapping[str, Any], file: Path = README) -> None:
    """Put the results of ``document`` between the markers of ``file``."""
    text = file.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise ValueError(f"{file} has no markers for the results")
    file.write_text(f"{before}{BEGIN}\n\n{page_of(document)}\n{END}{after}", encoding="utf-8")


def page_of(document: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    targets, *others = tables_of(document)
    parts = [circumstances_of(document), ""]
    parts += [f"> {note}\n" for note in document["notes"]]
    parts += [f"> {n} was skipped: {why}\n" for n, why in document["skipped"].items()]
    parts += [_table(targets), _PICTURES, *(_table(table) for table in others)]
    return "\n".join(parts)


_PICTURES: Final = """![Throughput beside the baselines](results/throughput.png)

![Latency percentiles](results/latency.png)

![Batch size over time](results/batches.png)
"""


def _table(table: Table) -> str:
    lines = [
        f"### {table.title}",
        "",
        f"| {' | '.join(table.head)} |",
        f"|{'|'.join('---' if n == 0 else '--:' for n in range(len(table.head)))}|",
        *(f"| {' | '.join(row)} |" for row in table.rows),
        "",
    ]
    return "\n".join(lines)
