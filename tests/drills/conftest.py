"""One stack for the drills of a run, which live through failure after failure.

After a drill that failed the next one gets a new stack.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.drills.results import DrillResult, write_results
from tests.drills.stack import DrillStack, drill_stack

_HERE: Final = Path(__file__).parent
_RUN: Final = "WALLET_DRILLS"
"""``1``: run the drills. ``write``: also write their results into the specification."""
_TIMEOUT_S: Final = 300

_FAILED: Final = pytest.StashKey[bool]()

Report = Callable[[DrillResult], None]


class StackKeeper:
    """Starts a stack when the first drill needs it."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._stack: DrillStack | None = None

    def get(self) -> DrillStack:
        if self._stack is None:
            self._stack = self._running.enter_context(drill_stack())
        return self._stack

    def discard(self) -> None:
        self._running.close()
        self._stack = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped by default (a quarter of an hour); run by `make drills`."""
    for item in items:
        if not item.path.is_relative_to(_HERE) or "stack" not in getattr(item, "fixturenames", ()):
            continue
        item.add_marker(pytest.mark.drills)
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        if not os.environ.get(_RUN):
            item.add_marker(pytest.mark.skip(reason="takes long: run `make drills`"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether a test failed, for its fixtures."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def keeper() -> Iterator[StackKeeper]:
    keeper = StackKeeper()
    try:
        yield keeper
    finally:
        keeper.discard()


@pytest.fixture
def stack(keeper: StackKeeper, request: pytest.FixtureRequest) -> Iterator[DrillStack]:
    """A healthy service on a single primary."""
    running = keeper.get()
    yield running
    if request.node.stash.get(_FAILED, False):
        keeper.discard()
    else:
        running.cluster.remove_standby()


@pytest.fixture(scope="session")
def results() -> Iterator[list[DrillResult]]:
    """The results of this run, written at its end."""
    began, results = time.monotonic(), list[DrillResult]()
    yield results
    if os.environ.get(_RUN) == "write":
        write_results(results, time.monotonic() - began)


@pytest.fixture
def report(results: list[DrillResult], capsys: pytest.CaptureFixture[str]) -> Report:
    """Takes the result of a drill, prints it, and fails if anything is wrong."""

    def take(result: DrillResult) -> None:
        results.append(result)
        with capsys.disabled():
            print(f"\n  {result}")
        assert result.violations == []
        assert result.missed == []

    return take
