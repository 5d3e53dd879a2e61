"""Dashboards and alerts: they use existing metrics, and alerts fire when they should."""

import subprocess
from pathlib import Path

import pytest
import yaml

from runtime.metrics.catalogue import CATALOGUE, exported_names
from specification.generators import dashboard
from tests.support.prometheus import (
    DASHBOARDS,
    DEPLOY,
    PROMTOOL,
    RULE_TESTS,
    RULES,
    Query,
    alert_queries,
    alerts,
    dashboard_queries,
    panels,
)

EXPORTED = {name for metric in CATALOGUE for name in exported_names(metric)}
QUERIES = [*dashboard_queries(), *alert_queries()]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_a_query_asks_for_metrics_of_the_catalogue(query: Query) -> None:
    ours = {name for name in query.metrics if name.startswith("ray_wallet_")}
    assert ours or query.metrics
    assert ours <= EXPORTED


def test_every_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    asked = {name for query in QUERIES for name in query.metrics}
    unseen = {name for name in CATALOGUE if not asked & set(exported_names(name))}
    assert unseen <= {
        # Not on a dashboard: batches are in their histogram, the others serve ad-hoc queries.
        "wallet_shard_batches_total",
        "wallet_shard_events_total",
        "wallet_projection_batches_total",
        "wallet_projection_failures_total",
        "wallet_projection_dead_letters_total",
        "wallet_audit_rounds_total",
        "wallet_audit_failures_total",
    }


def test_the_dashboard_is_what_the_code_writes() -> None:
    written = dashboard.FILE.read_text(encoding="utf-8")
    assert written == dashboard.render(), "run `python -m specification.generators.dashboard`"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_has_each_panel_once_and_none_on_top_of_another(path: Path) -> None:
    found = panels(path)
    assert len({panel["id"] for panel in found}) == len(found)
    cells = [
        (column, row)
        for at in (panel["gridPos"] for panel in found)
        for column in range(at["x"], at["x"] + at["w"])
        for row in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


def test_dashboards_ask_the_data_source_that_is_provisioned() -> None:
    file = DEPLOY / "grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
    for path in DASHBOARDS:
        for panel in panels(path):
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == source["uid"], panel["title"]


def test_every_alert_has_a_severity_a_summary_and_a_description() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in {"warning", "critical"}, alert["alert"]
        assert alert["annotations"]["summary"], alert["alert"]
        assert alert["annotations"]["description"], alert["alert"]


def test_every_alert_is_tested_firing_and_silent() -> None:
    text = RULE_TESTS.read_text(encoding="utf-8")
    for alert in alerts():
        name = alert["alert"]
        assert f"alertname: {name}, exp_alerts: []" in text, name
        fires = f'alertname="{name}", alertstate="firing"' in text
        assert fires or f"alertname: {name}\n        exp_alerts:" in text, name


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert PROMTOOL
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(RULE_TESTS)]):
        done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
