"""Writes the Grafana dashboard from a list of panels into deploy/grafana/dashboards.

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
    """A graph. ``queries``: legend → PromQL expression."""

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
                "Commands refused by business rules, by code",
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
        "Write side",
        (
            Panel(
                "Commands, by shard",
                "ops",
                {"shard {{shard}}": _rate("shard_commands_total", "shard")},
            ),
            Panel(
                "Command latency, by stage (mean)",
                "s",
                {stage: _mean(f"shard_{stage}_seconds") for stage in _STAGES},
                "The sum is the time of a command in its shard.",
            ),
            Panel(
                "Command latency, by stage (p99)",
                "s",
                {stage: _quantile(0.99, f"shard_{stage}_seconds") for stage in _STAGES},
            ),
            Panel(
                "Commands per batch",
                "short",
                {
                    "p50": _quantile(0.5, "shard_batch_commands"),
                    "p99": _quantile(0.99, "shard_batch_commands"),
                },
                "The busier a shard, the more commands share one transaction.",
            ),
            Panel(
                "Queued commands",
                "short",
                {
                    "mailbox {{shard}}": "max by (shard) (ray_wallet_shard_mailbox_items)",
                    "replicas": "sum(ray_wallet_ingress_queued)",
                },
            ),
            Panel(
                "Version conflicts, idempotent replays, rejections",
                "ops",
                {
                    "conflicts": "sum(rate(ray_wallet_shard_conflicts_total[$__rate_interval]))",
                    "replays": "sum(rate(ray_wallet_shard_replays_total[$__rate_interval]))",
                    "expired holds": (
                        "sum(rate(ray_wallet_shard_expired_total[$__rate_interval]))"
                    ),
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
                "Share of commands of the hottest wallets, by rank",
                "percentunit",
                {
                    "shard {{shard}}, {{rank}}": "max by (shard, rank) "
                    "(ray_wallet_shard_hot_wallet_share)"
                },
                "Share of the shard's commands of the last 5 seconds.",
            ),
            Panel(
                "Hot wallets",
                "ops",
                {"{{wallet_id}}": _rate("shard_hot_wallet_commands_total", "wallet_id")},
                "Wallets with 10 % or more of their shard's commands.",
            ),
        ),
    ),
    Row(
        "Events and projections",
        (
            Panel(
                "Outbox events, by shard",
                "short",
                {"shard {{shard}}": "max by (shard) (ray_wallet_shard_outbox_events)"},
            ),
            Panel(
                "Outbox age",
                "s",
                {
                    "shard {{shard}}": "max by (shard) (ray_wallet_shard_outbox_age_seconds)",
                    "in the database": "max(ray_wallet_audit_outbox_age_seconds)",
                },
            ),
            Panel(
                "Publish latency (commit to stream)",
                "s",
                {
                    "p50": _quantile(0.5, "shard_publish_seconds"),
                    "p99": _quantile(0.99, "shard_publish_seconds"),
                },
            ),
            Panel(
                "Events published and applied",
                "ops",
                {
                    "published": "sum(rate(ray_wallet_shard_published_total[$__rate_interval]))",
                    "applied": "sum(rate(ray_wallet_projection_events_total[$__rate_interval]))",
                    "publish failures": "sum(rate("
                    "ray_wallet_shard_publish_failures_total[$__rate_interval]))",
                },
            ),
            Panel(
                "Projection lag, in events",
                "short",
                {"group {{group}}": "max by (group) (ray_wallet_projection_lag_events)"},
            ),
            Panel(
                "Projection lag, in seconds",
                "s",
                {"group {{group}}": "max by (group) (ray_wallet_projection_lag_seconds)"},
            ),
            Panel(
                "Projection batch latency (p99)",
                "s",
                {"group {{group}}": _quantile(0.99, "projection_fold_seconds", "group")},
            ),
            Panel(
                "Consistency alarms (must be 0)",
                "short",
                {
                    "mismatched wallets": "max(ray_wallet_audit_drift)",
                    "dead letters": "max(ray_wallet_audit_dead_letters)",
                    "lost histories": (
                        "sum(increase(ray_wallet_projection_lost_histories_total[1h]))"
                    ),
                    "projection gaps": "sum(increase(ray_wallet_projection_gaps_total[1h]))",
                },
            ),
            Panel(
                "Wallets checked by the auditor",
                "ops",
                {"wallets": "sum(rate(ray_wallet_audit_wallets_total[$__rate_interval]))"},
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
                "panels": [],
            }
        )
        top += 1
        for index, panel in enumerate(row.panels):
            column, line = index % _COLUMNS, index // _COLUMNS
            position = {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": top + line * _HEIGHT}
            panels.append(_panel_json(panel, len(panels) + 1, position))
        top += -(-len(row.panels) // _COLUMNS) * _HEIGHT
    return {
        "uid": "wallet",
        "title": "Wallet service",
        "description": "Generated by `python -m specification.generators.dashboard`. "
        "Metrics: specification/metrics.md.",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "tags": ["wallet"],
        "panels": panels,
    }


def _panel_json(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "prometheus"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": source,
        "gridPos": position,
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
    """The content of the generated file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
