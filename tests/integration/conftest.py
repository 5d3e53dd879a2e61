"""Fixtures for tests that change the settings of a server, or its files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import databases, servers
from tests.support.own_nats import OwnNats


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A separate server per test file, because its settings are changed."""
    with servers.postgres_server(use_docker=servers.docker_engine_answers()) as url:
        databases.make_template(url)
        yield url


@pytest.fixture
def dsn(own_server: str) -> Iterator[str]:
    """A migrated database on it, with synchronous commits."""
    with databases.copied_database(own_server) as url:
        name = url.rpartition("/")[2]
        databases.execute(url, f"ALTER DATABASE {name} SET synchronous_commit = on")
        yield url


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[OwnNats]:
    """A NATS server of this test, which may stop it and change its files."""
    server = OwnNats(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()
