"""The metrics that the running service exports, queried through a real Prometheus."""

import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from runtime.metrics.catalogue import CATALOGUE, exported_names
from tests.e2e.api import Api, eventually, new_id
from tests.support.prometheus import (
    PROMETHEUS,
    Prometheus,
    alert_queries,
    alerts,
    dashboard_queries,
    running_prometheus,
)
from tests.support.running_service import RunningService

_ARRIVAL_S = 120.0
"""Ray exports metrics every 10 s, and a rate needs two samples; a busy machine needs more
time."""


@pytest.fixture
def endpoint(service: RunningService) -> str:
    """HOST:PORT of Ray's metrics endpoint."""
    if service.state_dir is None:
        pytest.skip("the metrics are accessible on a local stack only")
    return f"127.0.0.1:{service.state_dir.load().ports['ray_metrics']}"


@contextmanager
def traffic(api: Api) -> Iterator[None]:
    """Run a mixed workload continuously."""
    wallet = api.new_wallet()
    enough = threading.Event()

    def run() -> None:
        while not enough.wait(0.02):
            key = new_id()
            for _ in range(2):
                api.debit(wallet, {"amount": "1.00", "status": "completed"}, key=key)
            api.credit(wallet, {"amount": "1000000.00"})
            api.wallet(wallet)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def exported(endpoint: str) -> set[str]:
    text = httpx.get(f"http://{endpoint}/metrics", timeout=30.0).text
    return set(re.findall(r"^(ray_\w+)\{", text, flags=re.MULTILINE))


def test_every_metric_and_everything_that_is_asked_for_is_exported(api: Api, endpoint: str) -> None:
    wanted = {name for metric in CATALOGUE for name in exported_names(metric)}
    for query in (*dashboard_queries(), *alert_queries()):
        wanted |= query.metrics
    with traffic(api):
        eventually(lambda: wanted <= exported(endpoint), timeout_s=_ARRIVAL_S)


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_answers_every_query_of_dashboards_and_alerts(api: Api, endpoint: str) -> None:
    queries = [*dashboard_queries(), *alert_queries()]

    def unanswered(prometheus: Prometheus) -> list[str]:
        return [
            query.place
            for query in queries
            if all(math.isnan(value) for value in prometheus.ask(query.expression))
        ]

    with running_prometheus(endpoint) as prometheus, traffic(api):
        eventually(prometheus.is_ready)
        left = [query.place for query in queries]

        def all_answered() -> bool:
            left[:] = unanswered(prometheus)
            return not left

        try:
            eventually(all_answered, timeout_s=_ARRIVAL_S)
        except AssertionError:
            pytest.fail(f"no values for {left}")
        rules = {rule["name"]: rule for rule in prometheus.rules()}
        assert set(rules) == {rule["alert"] for rule in alerts()}
        assert {
            name: rule["lastError"] for name, rule in rules.items() if rule.get("lastError")
        } == {}
        assert [name for name, rule in rules.items() if rule["state"] == "firing"] == []
