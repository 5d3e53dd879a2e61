"""One running service for all end-to-end tests, and a client for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.api import Api
from tests.support.running_service import RunningService, running_service

_HERE = Path(__file__).parent
_LAST = "test_what_the_run_left.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder; tests that check the whole run come last."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.e2e)
    items.sort(key=lambda item: item.path.name == _LAST)


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    """The running service, with default settings. Tests share it."""
    with running_service() as running:
        yield running


@pytest.fixture
def local_service(service: RunningService) -> RunningService:
    """The service, if it is a stack of this machine: commands and processes are accessible."""
    if service.state_dir is None:
        pytest.skip("needs a local stack")
    return service


@pytest.fixture(scope="session")
def api(service: RunningService) -> Iterator[Api]:
    """A client of the running service."""
    with Api(service.url) as client:
        yield client
