"""One cluster for the tests of this folder, which change it one after another."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import Cluster
from tests.support import databases

_HERE = Path(__file__).parent
_WORKERS = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped by default (two minutes, three nodes); run by `make cluster-test`."""
    if os.environ.get("WALLET_CLUSTER_TEST"):
        return
    for item in items:
        if item.path.is_relative_to(_HERE) and "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="several Ray nodes: run `make cluster-test`"))


@pytest.fixture(scope="module")
def cluster(_template: str, nats_server: str) -> Iterator[Cluster]:
    """A head and two workers, with deploy/serve.yaml deployed on them."""
    with databases.copied_database(_template) as database_url:
        cluster = Cluster(database_url, nats_server)
        try:
            cluster.start_head()
            cluster.start_workers(_WORKERS)
            cluster.serve_deploy(revision="first")
            yield cluster
        finally:
            cluster.stop()
