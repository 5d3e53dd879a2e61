"""One set of containers for the tests of a module, which change it one after another."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.stack import Containers, why_not

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder: `pytest -m "not docker"` leaves it out."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    """The whole service in its own containers, built from this checkout, with one worker."""
    yield from _running(workers=1)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Containers]:
    """The same with two workers."""
    yield from _running(workers=2)


def _running(*, workers: int) -> Iterator[Containers]:
    missing = why_not()
    if missing is not None:
        pytest.skip(f"containers are unavailable: {missing}")
    with Containers(workers=workers) as running:
        running.up("--build")
        yield running
