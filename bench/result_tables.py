"""A run's tables as rows of text, for the Markdown page and the HTML report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_VERDICTS = {"goal": "goal reached", "floor": "floor kept", "missed": "missed", None: "–"}


class Table(NamedTuple):
    """A table of text. The first column is text, the others are figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables_of(document: Mapping[str, Any]) -> list[Table]:
    """Targets, scenarios, baselines."""
    return [_targets(document), _scenarios(document), _baselines(document)]


def circumstances_of(document: Mapping[str, Any]) -> str:
    """A sentence on where and with what the run was made."""
    machine, postgres = document["machine"], document["postgres"]
    versions = document["versions"]
    service = ", ".join(f"{value} {name}" for name, value in document["service"].items())
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, Ray {versions.get('ray', '?')}; "
        f"the service as `make up` starts it ({service}); "
        f"Postgres {postgres['server_version']} with fsync {postgres['fsync']}, "
        f"synchronous_commit {postgres['synchronous_commit']}, full_page_writes "
        f"{postgres['full_page_writes']}; load by {document['generator']} on the same machine; "
        f"{document['mode']} run of {document['made_at'][:10]} at commit "
        f"{document['commit'][:12] or 'unknown'}."
    )


def _targets(document: Mapping[str, Any]) -> Table:
    rows = []
    for key, target in document["targets"].items():
        value = document["ratios"][key]
        sign = "≥" if target["at_least"] else "≤"
        rows.append(
            (
                f"`{key}`",
                target["what"],
                "–" if value is None else f"{value:,.2f}",
                f"{sign} {target['floor']:g}",
                f"{sign} {target['goal']:g}",
                _VERDICTS[target["verdict"]],
            )
        )
    return Table("Targets", ("ratio", "what", "value", "floor", "goal", ""), rows)


def _open(share: str, run: Mapping[str, Any]) -> str:
    runs = run["p99_ms_of_looks"]
    p99s = f"; median of p99 {', '.join(f'{p99_ms:,.0f}' for p99_ms in runs)}" if runs else ""
    return f"open, {share} %{p99s}"


def _scenarios(document: Mapping[str, Any]) -> Table:
    rows = [
        (f"`{name}`", connections, *_figures(run))
        for name, scenario in document["scenarios"].items()
        for connections, run in (
            *scenario["runs"].items(),
            *((_open(share, run), run) for share, run in scenario["open_loop"].items()),
        )
    ]
    head = ("scenario", "connections", *_HEAD)
    return Table("Scenarios", head, rows)


def _baselines(document: Mapping[str, Any]) -> Table:
    rows = [
        (f"{name} {run['variant']}".strip(), str(run["concurrency"]), *_figures(run))
        for name, baseline in document["baselines"].items()
        for run in baseline["runs"]
    ]
    return Table("Baselines", ("baseline", "connections", *_HEAD), rows)


_HEAD = ("requests/s", "transfers/s", "drained/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "errors")


def _figures(run: Mapping[str, Any]) -> list[str]:
    return [
        *(_count(run.get(key)) for key in ("requests_per_s", "transfers_per_s", "drained_per_s")),
        *(_ms(run[key]) for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
        ", ".join(f"{name}: {count:,}" for name, count in run["errors"].items()) or "0",
    ]


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if value else "–"


def _ms(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}"
