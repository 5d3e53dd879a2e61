"""A run as tables on the terminal."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_VERDICTS: Final = {
    "goal": "[green]goal reached[/green]",
    "floor": "[yellow]floor kept[/yellow]",
    "missed": "[red]missed[/red]",
    None: "[dim]not measured[/dim]",
}


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Circumstances, scenarios, baselines, targets."""
    _show_circumstances(console, document)
    console.print(_scenarios(document["scenarios"]))
    console.print(_baselines(document["baselines"]))
    console.print(_targets(document))
    for name, reason in document["skipped"].items():
        console.print(f"[yellow]{name} was skipped:[/yellow] {reason}")


def _show_circumstances(console: Console, document: Mapping[str, Any]) -> None:
    machine, postgres = document["machine"], document["postgres"]
    console.print(
        f"\n{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}; Postgres {postgres['server_version']}: fsync {postgres['fsync']}, "
        f"synchronous_commit {postgres['synchronous_commit']}; commit {document['commit'][:12]}; "
        f"load by {document['generator']} on the same machine",
        highlight=False,
    )
    if not document["durable"]:
        console.print(
            "[bold red]Postgres does not wait for the disk: these figures are not comparable.[/]"
        )
    for note in document["notes"]:
        console.print(f"[yellow]{note}[/yellow]")


def _scenarios(scenarios: Mapping[str, Any]) -> Table:
    table = Table(title="Scenarios (audited: answers = rows = events)", title_justify="left")
    table.add_column("scenario")
    for name in ("conn.", "requests/s", "transfers/s", "drained/s", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    table.add_column("errors")
    for name, scenario in scenarios.items():
        for run in scenario["runs"].values():
            table.add_row(name, str(run["concurrency"]), *_figures(run))
        for percent, run in scenario["open_loop"].items():
            table.add_row(f"{name}, open", f"{percent} %", *_figures(run))
    return table


def _figures(run: Mapping[str, Any]) -> list[str]:
    errors = ", ".join(f"{name}: {count:,}" for name, count in run["errors"].items())
    return [
        _count(run["requests_per_s"]),
        _count(run["transfers_per_s"]),
        _count(run.get("drained_per_s")),
        *(f"{run[name]:,.1f}" for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
        errors,
    ]


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if value else "–"


def _baselines(baselines: Mapping[str, Any]) -> Table:
    table = Table(title="Baselines (same server, same tables, audited)", title_justify="left")
    table.add_column("baseline")
    for name in ("conn.", "requests/s", "transfers/s", "", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    table.add_column("errors")
    for name, baseline in baselines.items():
        for run in baseline["runs"]:
            title = f"{name} {run['variant']}".strip()
            table.add_row(title, str(run["concurrency"]), *_figures(run))
    return table


def _targets(document: Mapping[str, Any]) -> Table:
    table = Table(title="Targets", title_justify="left")
    table.add_column("ratio")
    table.add_column("what")
    for name in ("value", "floor", "goal"):
        table.add_column(name, justify="right")
    table.add_column("")
    for key, target in document["targets"].items():
        value = document["ratios"][key]
        sign = "≥" if target["at_least"] else "≤"
        table.add_row(
            key,
            target["what"],
            "–" if value is None else f"{value:,.2f}",
            f"{sign} {target['floor']:g}",
            f"{sign} {target['goal']:g}",
            _VERDICTS[target["verdict"]],
        )
    return table
