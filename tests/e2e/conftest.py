"""One running service for all end-to-end tests, and one-line ways to talk to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.api import Api
from tests.support.running_service import RunningService, running_service

_HERE = Path(__file__).parent
_LAST = "test_what_the_run_left.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; what judges the whole run comes last."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.e2e)
    items.sort(key=lambda item: item.path.name == _LAST)


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    """The running service, with default settings. Tests share it: each makes its own wallets."""
    with running_service() as running:
        yield running


@pytest.fixture(scope="session")
def api(service: RunningService) -> Iterator[Api]:
    """A client of the running service."""
    with Api(service.url) as client:
        yield client
