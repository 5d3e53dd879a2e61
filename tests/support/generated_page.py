"""Writes the part of a document that a run generates, between two markers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

FAILURE_RESULTS: Final = Path(__file__).parents[2] / "specification" / "failure-results.md"


def write_generated_part(page: Path, command: str, lines: Sequence[str]) -> None:
    """Replace what an earlier run of ``command`` wrote. The markers are in the page already.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- written by {command} -->", f"<!-- /written by {command} -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} has no part of {command}")
    page.write_text("\n".join([before + begin, "", *lines, "", end]) + after, encoding="utf-8")


def table_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [table_line(head), table_line(["---"] * len(head)), *map(table_line, rows)]
