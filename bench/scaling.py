"""How cost grows: with shards, ingress replicas, wallets and history.

    python -m bench.scaling --help

Starts stacks of its own, one after the other, and writes `results/scaling.json` after every
measurement, so that an interrupted run keeps its results. `python -m bench.capacity`
formats them as tables.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from bench import results
from bench.audit import AuditFailed
from bench.data_growth import Tables
from bench.database_state import CONNECT_TIMEOUT_S
from bench.generators import wrk
from bench.generators.load_spec import LoadFailed
from bench.machine import POSTGRES_SETTINGS, commit, this_machine, versions
from bench.measure import Bench
from bench.plan import FULL
from bench.run import opened
from bench.scaling_steps import Scale, measure_history, measure_shape, measure_wallets
from bench.service import ServiceMissing, own_stack
from runtime.postgres.connect import connect

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()

Step = Callable[[Bench, Tables], Awaitable[Any]]


class Budget:
    """Time limit: no measurement starts after it."""

    def __init__(self, minutes: float) -> None:
        self._deadline = time.monotonic() + 60 * minutes

    @property
    def is_spent(self) -> bool:
        return time.monotonic() >= self._deadline


@app.command()
def scaling(
    shards: Annotated[str, typer.Option(help="Numbers of shards.")] = "1,2,4",
    ingress: Annotated[str, typer.Option(help="Numbers of ingress replicas.")] = "1,2,4",
    wallets: Annotated[str, typer.Option(help="Wallets in the table.")] = "100,10000,1000000",
    events: Annotated[str, typer.Option(help="Events in the journal.")] = "100000,1000000,5000000",
    grid: Annotated[bool, typer.Option(help="Every shape, not one dimension at a time.")] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of each load.")] = 8.0,
    minutes_max: Annotated[
        float, typer.Option(help="Start no measurement after this time.")
    ] = 60.0,
    output: Annotated[Path, typer.Option(help="File to write.")] = results.FOLDER / "scaling.json",
) -> None:
    """Measure how cost grows."""
    budget = Budget(minutes_max)
    found: dict[str, Any] = {"seconds": seconds, "shapes": [], "wallets": [], "history": []}
    try:
        for shape in shapes_of(_numbers(shards), _numbers(ingress), grid=grid):
            _in_a_stack(found, "shapes", shape, budget, output, measure_shape(shape, seconds))
        for name, counts, measure in (
            ("wallets", _numbers(wallets), measure_wallets),
            ("history", _numbers(events), measure_history),
        ):
            for count in counts:
                step = measure(count, seconds)
                _in_a_stack(found, name, _DEFAULT, budget, output, step)
    except AuditFailed as failure:
        console.print(f"[bold red]The audit failed[/]: {failure}")
        raise typer.Exit(1) from None
    except (LoadFailed, ServiceMissing) as failure:
        console.print(f"[red]Error:[/red] {failure}", highlight=False)
        raise typer.Exit(1) from None
    console.print(f"Written: {output}; tables: python -m bench.capacity {output}")


def shapes_of(shards: list[int], ingress: list[int], *, grid: bool) -> list[Scale]:
    """Numbers of shards and ingress replicas to try, none twice."""
    if grid:
        return [Scale(shards=s, ingress=i) for s in shards for i in ingress]
    one_dimension = [Scale(shards=s, ingress=_DEFAULT.ingress) for s in shards]
    other = [Scale(shards=_DEFAULT.shards, ingress=i) for i in ingress]
    return list(dict.fromkeys([*one_dimension, *other]))


_DEFAULT = Scale(shards=2, ingress=2)


def _in_a_stack(
    found: dict[str, Any], name: str, scale: Scale, budget: Budget, output: Path, step: Step
) -> None:
    """Do ``step`` on a fresh stack of ``scale``; add what it returns to ``found[name]``."""
    if budget.is_spent:
        found.setdefault("cut_off", []).append(name)
        return
    with own_stack(scale.environment()) as service:
        measured = asyncio.run(_measured(service, found, step))
    found[name].append(msgspec.to_builtins(measured))
    results.write(found, output)


async def _measured(service: Any, found: dict[str, Any], step: Step) -> Any:
    wrk_allowed = wrk.find_wrk() is not None
    async with opened(service, FULL, wrk_allowed=wrk_allowed) as bench:
        if "machine" not in found:
            found["machine"] = msgspec.to_builtins(this_machine())
            found["versions"], found["commit"] = versions(), commit()
            found["postgres"] = await bench.ledger.settings(POSTGRES_SETTINGS)
        connection = await connect(service.database_url, timeout_s=CONNECT_TIMEOUT_S)
        try:
            measured = await step(bench, Tables(connection))
        finally:
            await connection.close()
    console.print(measured.summary(), highlight=False, soft_wrap=True)
    return measured


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    app()
