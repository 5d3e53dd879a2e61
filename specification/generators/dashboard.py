"""The Grafana dashboard, written from a list of panels into deploy/grafana/dashboards.

python -m specification.generators.dashboard
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).parents[2] / "deploy/grafana/dashboards/wallet.json"

_COLUMNS: Final = 3
_WIDTH: Final = 24 // _COLUMNS
_HEIGHT: Final = 7


class Panel(NamedTuple):
    """A graph. ``queries``: legend → expression."""

    title: str
    unit: str
    queries: dict[str, str]
    help: str = ""


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _quantile(quantile: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    rate = f"rate(ray_wallet_{metric}_bucket_total[$__rate_interval])"
    return f"histogram_quantile({quantile}, sum by ({labels}) ({rate}))"


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate(ray_wallet_{metric}[$__rate_interval]))"


def _mean(metric: str) -> str:
    total, count = (
        f"sum(rate(ray_wallet_{metric}_{part}_total[$__rate_interval]))"
        for part in ("sum", "count")
    )
    return f"{total} / {count}"


_STAGES: Final = ("queue", "load", "decide", "commit", "reply")

ROWS: Final = (
    Row(
        "Requests",
        (
            Panel(
                "Requests, by route", "reqps", {"{{route}}": _rate("http_requests_total", "route")}
            ),
            Panel(
                "Requests, by status",
                "reqps",
                {"{{status}}": _rate("http_requests_total", "status")},
            ),
            Panel(
                "Latency, by route (p99)",
                "s",
                {"{{route}}": _quantile(0.99, "http_request_seconds", "route")},
            ),
            Panel("Problems, by code", "reqps", {"{{code}}": _rate("http_problems_total", "code")}),
            Panel(
                "Refused by the rules, by code",
                "ops",
                {"{{code}}": _rate("shard_refusals_total", "code")},
            ),
            Panel(
                "Postgres connections for reads",
                "short",
                {"{{state}}": "sum by (state) (ray_wallet_read_pool_connections)"},
            ),
        ),
    ),
    Row(
        "Writing",
        (
            Panel(
                "Commands, by shard",
                "ops",
                {"shard {{shard}}": _rate("shard_commands_total", "shard")},
            ),
            Panel(
                "A command's time, by stage (mean)",
                "s",
                {stage: _mean(f"shard_{stage}_seconds") for stage in _STAGES},
                "Stacked up this is a request's time at its shard.",
            ),
            Panel(
                "A command's time, by stage (p99)",
                "s",
                {stage: _quantile(0.99, f"shard_{stage}_seconds") for stage in _STAGES},
            ),
            Panel(
                "Commands in a batch",
                "short",
                {
                    "p50": _quantile(0.5, "shard_batch_commands"),
                    "p99": _quantile(0.99, "shard_batch_commands"),
                },
                "The busier a shard, the more commands share one transaction.",
            ),
            Panel(
                "Commands waiting",
                "short",
                {
                    "mailbox {{shard}}": "max by (shard) (ray_wallet_shard_mailbox_items)",
                    "replicas → {{shard}}": "sum by (shard) (ray_wallet_ingress_queued)",
                },
            ),
            Panel(
                "Conflicts, replays, refusals of full queues",
                "ops",
                {
                    "conflicts": "sum(rate(ray_wallet_shard_conflicts_total[$__rate_interval]))",
                    "replays": "sum(rate(ray_wallet_shard_replays_total[$__rate_interval]))",
                    "overloaded": "sum(rate(ray_wallet_shard_overloaded_total[$__rate_interval]))",
                    "outcome unknown": "sum(rate("
                    "ray_wallet_shard_outcomes_unknown_total[$__rate_interval]))",
                },
            ),
            Panel(
                "Wallets in memory, and activations",
                "short",
                {
                    "active, shard {{shard}}": "max by (shard) (ray_wallet_shard_wallets_active)",
                    "activations/s, shard {{shard}}": _rate("shard_activations_total", "shard"),
                },
            ),
            Panel(
                "Share of the hottest wallets, by rank",
                "percentunit",
                {
                    "shard {{shard}}, {{rank}}": "max by (shard, rank) "
                    "(ray_wallet_shard_hot_wallet_share)"
                },
                "Of the commands of the last 5 seconds.",
            ),
            Panel(
                "Hot wallets",
                "ops",
                {"{{wallet_id}}": _rate("shard_hot_wallet_commands_total", "wallet_id")},
                "Wallets that took a tenth of their shard's commands or more.",
            ),
        ),
    ),
    Row(
        "Events and reading",
        (
            Panel(
                "Events that wait for NATS, by shard",
                "short",
                {"shard {{shard}}": "max by (shard) (ray_wallet_shard_outbox_events)"},
            ),
            Panel(
                "Age of the oldest of them",
                "s",
                {
                    "shard {{shard}}": "max by (shard) (ray_wallet_shard_outbox_age_seconds)",
                    "in the database": "max(ray_wallet_audit_outbox_age_seconds)",
                },
            ),
            Panel(
                "From commit to the stream",
                "s",
                {
                    "p50": _quantile(0.5, "shard_publish_seconds"),
                    "p99": _quantile(0.99, "shard_publish_seconds"),
                },
            ),
            Panel(
                "Events published and folded",
                "ops",
                {
                    "published": "sum(rate(ray_wallet_shard_published_total[$__rate_interval]))",
                    "folded": "sum(rate(ray_wallet_projection_events_total[$__rate_interval]))",
                    "publish failures": "sum(rate("
                    "ray_wallet_shard_publish_failures_total[$__rate_interval]))",
                },
            ),
            Panel(
                "Projections behind, in events",
                "short",
                {"group {{group}}": "max by (group) (ray_wallet_projection_lag_events)"},
            ),
            Panel(
                "Projections behind, in seconds",
                "s",
                {"group {{group}}": "max by (group) (ray_wallet_projection_lag_seconds)"},
            ),
            Panel(
                "Folding a batch (p99)",
                "s",
                {"group {{group}}": _quantile(0.99, "projection_fold_seconds", "group")},
            ),
            Panel(
                "What must be zero",
                "short",
                {
                    "wallets that contradict themselves": "max(ray_wallet_audit_drift)",
                    "events put aside": "max(ray_wallet_audit_dead_letters)",
                    "gaps filled": "sum(increase(ray_wallet_projection_gaps_total[1h]))",
                },
            ),
            Panel(
                "Wallets compared by the auditor",
                "ops",
                {"wallets": "sum(rate(ray_wallet_audit_wallets_total[$__rate_interval]))"},
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    placed: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
                "panels": [],
            }
        )
        top += 1
        for place, panel in enumerate(row.panels):
            across, down = place % _COLUMNS, place // _COLUMNS
            at = {"h": _HEIGHT, "w": _WIDTH, "x": across * _WIDTH, "y": top + down * _HEIGHT}
            placed.append(_panel_json(panel, len(placed) + 1, at))
        top += -(-len(row.panels) // _COLUMNS) * _HEIGHT
    return {
        "uid": "wallet",
        "title": "Wallet service",
        "description": "Written by `python -m specification.generators.dashboard`. "
        "The metrics are explained in specification/metrics.md.",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "tags": ["wallet"],
        "panels": placed,
    }


def _panel_json(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "prometheus"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": source,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": expression,
                "legendFormat": legend,
            }
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def render() -> str:
    """The file, as it should be."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
