"""Writes tables that are generated from the code into the documents.

A table is between two comments, ``<!-- generated:NAME -->`` and ``<!-- /generated:NAME -->``.
`python -m specification.generators` writes all of them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from runtime.settings import Settings
from wallet.fold import fold_table, refund_table

_UNITS: Final = {
    "_niceness": "nice steps",
    "_per_s": "per second",
    "_s": "seconds",
    "_bytes_max": "bytes",
    "_port": "port",
    "_cpus": "CPUs",
    "_items_max": "items",
    "_in_flight_max": "calls",
    "_retries_max": "times",
    "api_keys_cached_max": "keys",
    "wallets_cached_max": "wallets",
    "transfers_cached_max": "transfers",
    "read_pool_max": "connections",
    "_commands_max": "commands",
    "_missed_max": "pings",
    "_queue_max": "commands",
    "publish_batch_max": "events",
    "projection_batch_max": "events",
    "_events_max": "events",
    "shard_count": "actors",
    "projection_groups": "actors",
    "ingress_replicas": "processes",
    "stream_partitions": "partitions",
    "stream_replicas": "copies",
    "statements_max": "statements",
}
"""Unit of a number by the suffix of its setting's name; the first match counts."""


def unit_of(name: str) -> str | None:
    """The unit of a setting, or None if its name has no known suffix."""
    return next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), None)


def settings_table() -> str:
    """Every setting as a Markdown table: variable, default, unit, description."""
    lines = ["| variable | default | unit | description |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (
            f"`WALLET_{name.upper()}`",
            _default_text(field),
            unit_of(name) or "",
            _description(field),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _default_text(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{value:.15g}"
    return f"`{value}`" if value else "empty"


def _description(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


Table = tuple[str, Callable[[], str]]
"""The document of a table, and the function that generates it."""

GENERATED_TABLES: Final[dict[str, Table]] = {
    "fold": ("specification/domain.md", fold_table),
    "refunds": ("specification/domain.md", refund_table),
    "settings": ("docs/operating/settings.md", settings_table),
}
"""The tables of this module, by their names in the markers."""


def replace_table(document: str, name: str, table: str) -> str:
    """``document`` with ``table`` between the comments of ``name``.

    Raises:
        ValueError: the document doesn't have exactly one such pair of comments.
    """
    begin, end = f"<!-- generated:{name} -->\n", f"\n<!-- /generated:{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"expected exactly one pair of comments for the table {name!r}")
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{table}{end}{after}"


def update_tables(root: Path, tables: Mapping[str, Table], *, check: bool) -> list[str]:
    """Write ``tables`` into their documents below ``root``; returns the documents that differed.

    ``check``: only compare, don't write.
    """
    differed = []
    for name, (file, generate) in tables.items():
        path = root / file
        document = path.read_text(encoding="utf-8")
        generated = replace_table(document, name, generate())
        if generated != document:
            differed.append(file)
            if not check:
                path.write_text(generated, encoding="utf-8")
    return differed
