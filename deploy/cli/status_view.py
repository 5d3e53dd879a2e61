"""Statistics of the running service as tables, with rates between two snapshots.

The tables fit into 80 columns.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.shard.statistics import ShardStatistics
from deploy.local.status_source import StatusSnapshot
from projections.statistics import ProjectionStatistics
from runtime.metrics.histogram import HistogramSnapshot
from serve_app.asgi.statistics import ReplicaStatistics

_STAGES: Final = ("queue", "load", "decide", "commit", "reply")

_HOT_WALLETS_MAX: Final = 5

_SLOW_S: Final = 30.0
"""A longer lag or outbox age is shown in red. The alerts have the same bound."""

StatisticsT = TypeVar("StatisticsT", bound=msgspec.Struct)


def render_status(before: StatusSnapshot, now: StatusSnapshot) -> RenderableType:
    """The tables for ``now``, with rates since ``before``."""
    elapsed_s = max(now.at_s - before.at_s, 1e-3)
    shards = _pairs(before.shards, now.shards, "shard")
    return Group(
        _replicas(_pairs(before.replicas, now.replicas, "replica"), elapsed_s),
        Text(),
        _shards(shards, elapsed_s),
        Text(),
        _latencies(shards),
        Text(),
        _projections(_pairs(before.projections, now.projections, "group"), elapsed_s),
        Text(),
        _hot_wallets(now.shards),
        _audit(now.projections),
    )


def _pairs(
    before: list[StatisticsT], now: list[StatisticsT], name: str
) -> list[tuple[StatisticsT, StatisticsT]]:
    """Each with its earlier statistics; with itself if it is new or was replaced."""
    known: Mapping[object, StatisticsT] = {_identity(one, name): one for one in before}
    return [
        (known.get(_identity(one, name), one), one)
        for one in sorted(now, key=lambda found: str(getattr(found, name)))
    ]


def _identity(one: msgspec.Struct, name: str) -> object:
    return getattr(one, name), one.pid  # type: ignore[attr-defined]  # all three types have a pid


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _replicas(pairs: list[tuple[ReplicaStatistics, ReplicaStatistics]], elapsed_s: float) -> Table:
    table = _table("REPLICA", "REQUESTS/S", "MEAN", "5XX", "429", "QUEUED", "READ POOL")
    for before, now in pairs:
        requests = now.requests - before.requests
        mean_s = (now.seconds - before.seconds) / requests if requests else None
        pool = f"{now.pool.get('busy', 0)} of {now.pool.get('max', 0)} busy"
        table.add_row(
            now.replica,
            _number(requests / elapsed_s),
            _milliseconds(mean_s),
            _error_count(now.failed),
            _number(now.overloaded),
            _number(now.queued),
            pool,
        )
    return _or_empty(table, "No replica responds.")


def _shards(pairs: list[tuple[ShardStatistics, ShardStatistics]], elapsed_s: float) -> Table:
    table = _table(
        "SHARD", "COMMANDS/S", "CMDS/BATCH", "MAILBOX", "WALLETS", "OUTBOX", "OUTBOX AGE"
    )
    for before, now in pairs:
        table.add_row(
            f"{now.shard}" if now.journal_ready else f"[red]{now.shard} (database down)[/red]",
            _number((now.commands - before.commands) / elapsed_s),
            _number(_mean_between(before, now, "batch_commands")),
            _number(now.mailbox_items),
            _number(now.wallets_active),
            _number(now.outbox_events),
            _age(now.outbox_age_s),
        )
    return _or_empty(table, "No shard responds.")


def _latencies(pairs: list[tuple[ShardStatistics, ShardStatistics]]) -> Table:
    """The mean time that a command spends in each stage of its shard."""
    table = _table("LATENCY", *(stage.upper() for stage in _STAGES), "CONFLICTS")
    for before, now in pairs:
        means = (_milliseconds(_mean_between(before, now, f"{stage}_seconds")) for stage in _STAGES)
        table.add_row(f"shard {now.shard}", *means, _number(now.conflicts))
    return table


def _projections(
    pairs: list[tuple[ProjectionStatistics, ProjectionStatistics]], elapsed_s: float
) -> Table:
    table = _table("PROJECTION", "EVENTS/S", "LAG EVENTS", "LAG", "GAPS", "DEAD LETTERS")
    for before, now in pairs:
        table.add_row(
            f"{now.group}" if now.ready else f"[red]{now.group} (disconnected)[/red]",
            _number((now.events - before.events) / elapsed_s),
            f"{now.pending:,}",
            _age(now.lag_s),
            _number(now.gaps),
            _error_count(now.dead_letters),
        )
    return _or_empty(table, "No projection responds.")


def _hot_wallets(shards: list[ShardStatistics]) -> RenderableType:
    hot = [(wallet, one.shard) for one in shards for wallet in one.hot_wallets]
    if not hot:
        return Text("No hot wallets: no writes in the last seconds.\n", style="dim")
    hot.sort(key=lambda found: -found[0].commands_per_s)
    table = _table("HOT WALLET", "COMMANDS/S", "SHARD SHARE", "SHARD")
    for wallet, shard in hot[:_HOT_WALLETS_MAX]:
        rate = f"{wallet.commands_per_s:,.1f}"
        table.add_row(wallet.wallet_id, rate, f"{wallet.share:.0%}", str(shard))
    return Group(table, Text())


def _audit(projections: list[ProjectionStatistics]) -> Text:
    found = next((one.audit for one in projections if one.audit is not None), None)
    if found is None:
        return Text("Auditor is not running.", style="red")
    text = Text(f"Audit: {found.wallets:,} wallets compared in {found.rounds:,} rounds, ")
    text.append(
        f"{found.mismatched_wallets:,} mismatched", "red" if found.mismatched_wallets else "green"
    )
    text.append("\n       dead letters ")
    text.append(f"{found.dead_letters:,}", "red" if found.dead_letters else "green")
    text.append(f", oldest outbox row {found.outbox_age_s:.1f} s")
    return text


def _mean_between(before: ShardStatistics, now: ShardStatistics, name: str) -> float | None:
    """The mean of the observations in between; None if there were none."""
    then: HistogramSnapshot = before.distributions[name]
    found: HistogramSnapshot = now.distributions[name]
    count = found.count - then.count
    return (found.total - then.total) / count if count else None


def _or_empty(table: Table, message: str) -> Table:
    if not table.rows:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row(Text(message, style="red"))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _error_count(value: int) -> str:
    return f"[red]{value:,}[/red]" if value else "0"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _age(seconds: float) -> str:
    shown = f"{seconds:,.1f} s"
    return f"[red]{shown}[/red]" if seconds > _SLOW_S else shown
