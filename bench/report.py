"""A run as one self-contained HTML file, with pictures and style."""

import base64
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.result_tables import Table, circumstances_of, tables_of

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Wallet service: benchmark</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
p.about {{ opacity: .75; max-width: 60rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }}
th:first-child, td:first-child, td.words {{ text-align: left; }}
tbody tr:hover {{ background: var(--soft); }}
code {{ font: .95em ui-monospace, monospace; }}
td.good {{ color: #1a7f37; }} td.fair {{ color: #9a6700; }} td.bad {{ color: #cf222e; }}
img {{ max-width: 100%; background: white; border-radius: 6px; }}
.warning {{ border-left: 4px solid #cf222e; padding: .4rem 1rem; }}
@media (max-width: 40rem) {{
  thead {{ display: none; }}
  table, tbody, tr {{ display: block; }}
  tr {{ border-bottom: 2px solid var(--line); padding: .4rem 0; }}
  td {{ display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0;
    white-space: normal; overflow-wrap: anywhere; }}
  td::before {{ content: attr(data-column); flex: none; opacity: .75; text-align: left; }}
  td.words:not(:first-child) {{ text-align: right; }}
  td:first-child {{ font-weight: 600; }} td:first-child::before {{ content: none; }}
}}
</style></head><body>
<h1>Wallet service: benchmark</h1>
<p class="about">{about}</p>
{warnings}
{targets}
{pictures}
{tables}
</body></html>
"""

_CLASSES: Final = {"goal reached": "good", "floor kept": "fair", "missed": "bad"}

_CAPTIONS: Final = {
    "throughput": "Throughput beside the baselines",
    "latency": "Latency percentiles",
    "batches": "Batch size over time",
}


def write_report(document: Mapping[str, Any], pictures: Mapping[str, Path], file: Path) -> None:
    """Write the report of ``document``, with ``pictures`` inside."""
    targets, *others = tables_of(document)
    file.write_text(
        _PAGE.format(
            about=_text(circumstances_of(document)),
            warnings=_warnings(document),
            targets=_table(targets),
            pictures="\n".join(_picture(name, path) for name, path in pictures.items()),
            tables="\n".join(_table(table) for table in others),
        ),
        encoding="utf-8",
    )


def _warnings(document: Mapping[str, Any]) -> str:
    warnings = list(document["notes"])
    warnings += [f"{name} was skipped: {reason}" for name, reason in document["skipped"].items()]
    if not document["durable"]:
        warnings.insert(0, "Postgres does not wait for the disk: these figures are not comparable.")
    return "".join(f'<p class="warning">{_text(one)}</p>' for one in warnings)


def _picture(name: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = _text(_CAPTIONS[name])
    return f'<h2>{caption}</h2><img alt="{caption}" src="data:image/png;base64,{data}">'


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = "".join(
        f"<tr>{''.join(_cell(*pair) for pair in zip(row, table.head, strict=True))}</tr>"
        for row in table.rows
    )
    return (
        f'<h2>{_text(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: str, column: str) -> str:
    """A cell. On a narrow screen each row is a list, and each cell names its column."""
    kind = _CLASSES.get(cell, "words" if re.search(r"[a-z]{3}", cell) else "")
    chosen = f' class="{kind}"' if kind else ""
    return f'<td{chosen} data-column="{html.escape(column)}">{_text(cell)}</td>'


def _text(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
