"""The time limits of tests, and the number of test processes."""

import ast
from pathlib import Path

import pytest

from tests.__main__ import runs

TESTS = Path(__file__).parents[1]
NAME_CHARACTERS_MAX = 70


def test_a_unit_test_times_out_after_thirty_seconds(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker is not None
    assert marker.args == (30,)


def test_names_of_tests_are_at_most_seventy_characters() -> None:
    too_long = [
        f"{path.relative_to(TESTS)}::{node.name}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name) > NAME_CHARACTERS_MAX
    ]
    assert too_long == []


# -- in how many processes -----------------------------------------------------------------------


def test_everything_is_a_parallel_run_and_one_of_what_starts_the_service() -> None:
    parallel, in_turn = runs([])
    assert "--numprocesses" in parallel
    assert {"tests/unit", "tests/integration", "tests/simulation"} <= set(parallel)
    assert in_turn == ["tests/cluster", "tests/docker", "tests/drills", "tests/e2e"]


def test_a_folder_is_run_in_parallel_and_a_file_in_one_process() -> None:
    (folder,) = runs(["tests/unit", "-k", "tests"])
    assert folder[-3:] == ["-k", "tests", "tests/unit"]
    assert "--numprocesses" in folder
    file = "tests/unit/test_money.py::test_x"
    assert runs([file]) == [[file]]


def test_what_starts_the_service_is_run_in_one_process() -> None:
    assert runs(["-q", "tests/e2e"]) == [["-q", "tests/e2e"]]


def test_a_requested_number_of_processes_is_used() -> None:
    assert runs(["-n4", "tests/unit"]) == [["-n4", "tests/unit"]]
    assert runs(["--pdb", "tests/unit"]) == [["--pdb", "tests/unit"]]
    (colourful,) = runs(["--color=yes", "tests/unit"])
    assert "--numprocesses" in colourful
