"""Tables that are printed from the code into the documents, so that they can't say otherwise.

    python -m wallet.documents          # prints them anew
    python -m wallet.documents --check  # only says whether they are up to date

A table stands between two comments, ``<!-- printed:NAME -->`` and ``<!-- /printed:NAME -->``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from wallet.fold import fold_table
from wallet.settings import Settings

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
}
"""Unit of a number by the end of its setting's name; the first that fits counts."""


def unit_of(name: str) -> str | None:
    """What the number in a setting counts, or None if its name doesn't tell."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)


def settings_table() -> str:
    """Every setting as a Markdown table: variable, default, unit, reason."""
    lines = ["| variable | default | unit | why |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (f"`WALLET_{name.upper()}`", _shown(field), unit_of(name) or "", _reason(field))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{value:.15g}"
    return f"`{value}`" if value else "empty"


def _reason(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


TABLES: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "fold": ("specification/domain.md", fold_table),
    "settings": ("README.md", settings_table),
}
"""Name of a table → the document that it stands in, and what prints it."""


def with_table(document: str, name: str, table: str) -> str:
    """``document`` with ``table`` between the comments of ``name``.

    Raises:
        ValueError: the document has no such place, or more than one.
    """
    begin, end = f"<!-- printed:{name} -->\n", f"\n<!-- /printed:{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"there must be one place for the table {name!r}")
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{table}{end}{after}"


def print_tables(root: Path, *, check: bool) -> list[str]:
    """Print every table into its document below ``root``; returns the documents that differed.

    ``check``: change nothing.
    """
    differed = []
    for name, (file, print_table) in TABLES.items():
        path = root / file
        document = path.read_text(encoding="utf-8")
        printed = with_table(document, name, print_table())
        if printed != document:
            differed.append(file)
            if not check:
                path.write_text(printed, encoding="utf-8")
    return differed


if __name__ == "__main__":
    stale = print_tables(Path(__file__).resolve().parents[1], check="--check" in sys.argv)
    for file in stale:
        print(file)
    sys.exit(bool(stale) and "--check" in sys.argv)
