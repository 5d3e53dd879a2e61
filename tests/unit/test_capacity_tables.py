"""The tables of capacity.md can be made from every results file that the repository has."""

import json

import pytest

from bench.capacity import tables_of
from bench.results import FOLDER


@pytest.mark.parametrize("name", ["scaling.json", "history.json"])
def test_stored_results_become_tables(name: str) -> None:
    found = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    text = tables_of(found)
    for one in found["history"]:
        assert f"| {one['events']:,} | {one['deep_unary']['transfers_per_s']:,.0f} |" in text
