"""Fixtures for all tests: real servers, fresh databases, clean streams."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases, servers, streams

_HERE = Path(__file__).parent
_TIMEOUTS_S = {"unit": 30, "contract": 60, "integration": 60}
"""By folder. The others start the whole service or search for long: see pyproject.toml."""


@cache
def _use_docker() -> bool:
    return servers.docker_engine_answers()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the time limit of its folder."""
    for item in items:
        if not item.path.is_relative_to(_HERE):
            continue
        folder = item.path.relative_to(_HERE).parts[0]
        # The first test that needs a container may have to wait until its image has been pulled.
        waits_for_images = folder != "unit" and _use_docker()
        if folder in _TIMEOUTS_S and not waits_for_images:
            item.add_marker(pytest.mark.timeout(_TIMEOUTS_S[folder]))


def pytest_report_header() -> str:
    if _use_docker():
        return f"servers: containers ({servers.POSTGRES_IMAGE}, {servers.NATS_IMAGE})"
    return "servers: embedded PostgreSQL and NATS (no Docker engine answered)"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for note in servers.notes:
        terminalreporter.write_line(f"servers: {note}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's notes to the process that prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["server_notes"] = servers.notes


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    servers.notes += getattr(node, "workeroutput", {}).get("server_notes", [])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """DSN of a PostgreSQL server of this run. Tests use `database` instead."""
    with servers.postgres_server(use_docker=_use_docker()) as url:
        yield url


@pytest.fixture(scope="session")
def nats_server() -> Iterator[str]:
    """URL of a NATS server of this run. Tests use `nats_url` instead."""
    with servers.nats_server(use_docker=_use_docker()) as url:
        yield url


@pytest.fixture(scope="session")
def _template(postgres_server: str) -> str:
    databases.make_template(postgres_server)
    return postgres_server


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    """DSN of an empty database, dropped after the test."""
    with databases.empty_database(postgres_server) as url:
        yield url


@pytest.fixture
def database(_template: str) -> Iterator[str]:
    """DSN of a migrated database that belongs to this test alone, dropped after it."""
    with databases.copied_database(_template) as url:
        yield url


@pytest.fixture
def nats_url(nats_server: str) -> str:
    """URL of a NATS server whose JetStream is empty at the start of the test."""
    databases.in_own_loop(streams.delete_all_streams(nats_server))
    return nats_server


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Lines with what the test measured: shown at its end, whether it passed or not."""
    lines: list[str] = []
    yield lines
    with capsys.disabled():
        for line in lines:
            print(f"\n  {line}", end="")
