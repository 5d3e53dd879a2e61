"""Load of the running service as tables.

The tables fit into 80 columns. What counts since the start of a process is called a total.
"""

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.cli.load_figures import (
    STAGES,
    HotWalletLoad,
    ProjectionLoad,
    ReplicaLoad,
    ServiceLoad,
    ShardLoad,
    load_between,
)
from deploy.local.status_source import StatusSnapshot
from projections.statistics import AuditStatistics

_SLOW_S: Final = 30.0
"""A longer lag or outbox age is shown in red. The alerts have the same bound."""


def render_status(before: StatusSnapshot, now: StatusSnapshot) -> RenderableType:
    """The tables for ``now``, with rates since ``before``."""
    return render_load(load_between(before, now))


def render_load(load: ServiceLoad) -> RenderableType:
    """The tables of a load."""
    return Group(
        _replicas(load.replicas),
        Text(),
        _shards(load.shards),
        Text(),
        _latencies(load.shards),
        Text(),
        _projections(load.projections),
        Text(),
        _hot_wallets(load.hot_wallets),
        _audit(load.audit),
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    first, *numbers = columns
    # On a narrow screen the first column gives way: a number must not be cut.
    table.add_column(first, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _replicas(replicas: list[ReplicaLoad]) -> Table:
    table = _table("REPLICA", "REQUESTS/S", "MEAN", "5XX TOTAL", "429 TOTAL", "QUEUED", "READS")
    for one in replicas:
        table.add_row(
            one.replica,
            _number(one.requests_per_s),
            _milliseconds(one.mean_s),
            _error_count(one.failed_total),
            _number(one.overloaded_total),
            _number(one.queued),
            f"{one.pool_busy} of {one.pool_max}",
        )
    return _or_empty(table, "No replica responds.")


def _shards(shards: list[ShardLoad]) -> Table:
    table = _table(
        "SHARD", "COMMANDS/S", "CMDS/BATCH", "MAILBOX", "WALLETS", "OUTBOX", "OUTBOX AGE"
    )
    for one in shards:
        table.add_row(
            f"{one.shard}" if one.database_up else f"[red]{one.shard} (database down)[/red]",
            _number(one.commands_per_s),
            _number(one.commands_per_batch),
            _number(one.mailbox),
            _number(one.wallets),
            _number(one.outbox_events),
            _age(one.outbox_age_s),
        )
    return _or_empty(table, "No shard responds.")


def _latencies(shards: list[ShardLoad]) -> Table:
    """The mean time that a command spends in each stage of its shard."""
    table = _table("LATENCY", *(stage.upper() for stage in STAGES), "CONFLICTS TOTAL")
    for one in shards:
        means = (_milliseconds(one.stages_s[stage]) for stage in STAGES)
        table.add_row(f"shard {one.shard}", *means, _number(one.conflicts_total))
    return table


def _projections(projections: list[ProjectionLoad]) -> Table:
    table = _table("PROJECTION", "EVENTS/S", "LAG EVENTS", "LAG", "GAPS TOTAL", "DEAD LETTERS")
    for one in projections:
        table.add_row(
            f"{one.projection}" if one.connected else f"[red]{one.projection} (disconnected)[/red]",
            _number(one.events_per_s),
            f"{one.lag_events:,}",
            _age(one.lag_s),
            _number(one.gaps_total),
            _error_count(one.dead_letters),
        )
    return _or_empty(table, "No projection responds.")


def _hot_wallets(hot: list[HotWalletLoad]) -> RenderableType:
    if not hot:
        return Text("No hot wallets: no writes in the last seconds.\n", style="dim")
    table = _table("HOT WALLET", "COMMANDS/S", "SHARD SHARE", "SHARD")
    for one in hot:
        rate = f"{one.commands_per_s:,.1f}"
        table.add_row(one.wallet_id, rate, f"{one.share:.0%}", str(one.shard))
    return Group(table, Text())


def _audit(found: AuditStatistics | None) -> Text:
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
