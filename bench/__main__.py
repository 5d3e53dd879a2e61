"""`python -m bench`: the command behind `make bench` and `make bench-quick`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import plots, readme_results, report, results, terminal_tables
from bench.audit import AuditFailed
from bench.baselines.database import baseline_database
from bench.generators import wrk
from bench.generators.generate import PYTHON_GENERATOR_NOTE
from bench.generators.load_spec import LoadFailed
from bench.machine import POSTGRES_SETTINGS, commit, this_machine, versions
from bench.measure import Bench
from bench.plan import FULL, QUICK, Plan
from bench.progress import Reporter
from bench.results import Circumstances
from bench.run import Run, opened
from bench.service import Service, ServiceMissing, own_stack, running_service

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 160)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option(help="Short loads: under 3 minutes.")] = False,
    python: Annotated[bool, typer.Option(help="Don't use wrk even if it is installed.")] = False,
    own: Annotated[
        bool, typer.Option(help="Start a separate stack even if one is running.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A scenario, or baselines, neighbour, memory. Repeatable."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Output folder.")] = results.FOLDER,
    http_url: Annotated[
        str, typer.Option(help="URL of another service than the one of `make up`.")
    ] = "",
    database_url: Annotated[str, typer.Option(help="Its database.")] = "",
    nats_url: Annotated[str, typer.Option(help="Its NATS server.")] = "",
    pid: Annotated[
        list[int] | None, typer.Option(help="Process of that service; its children are included.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="`Name: value` to send with every request.")
    ] = None,
) -> None:
    """Measure the running service (or a separate stack) and the baselines."""
    wrk_allowed = wrk.find_wrk() is not None and not python
    if not wrk_allowed and not python:
        console.print(f"[yellow]{wrk.HOW_TO_INSTALL}[/yellow]")
    given = None
    if http_url:
        given = Service(
            http_url=http_url,
            database_url=database_url,
            nats_url=nats_url,
            pids=tuple(pid or ()),
            headers=tuple(header or ()),
        )
    plan = QUICK if quick else FULL
    try:
        with _service(given, own=own) as service:
            document = asyncio.run(_run(service, plan, only or [], wrk_allowed=wrk_allowed))
    except AuditFailed as failure:
        console.print(f"[bold red]The audit failed[/]. No figures were written: {failure}")
        raise typer.Exit(1) from None
    except (LoadFailed, ServiceMissing) as failure:
        console.print(f"[red]Error:[/red] {failure}", highlight=False)
        raise typer.Exit(1) from None
    terminal_tables.show(console, document)
    _leave(document, output, is_page=plan is FULL and output == results.FOLDER and not only)


@contextmanager
def _service(given: Service | None, *, own: bool) -> Iterator[Service]:
    found = given or (None if own else running_service())
    if found is not None:
        yield found
        return
    console.print("No service is running (`make up`). Starting one for this benchmark …")
    with own_stack() as service:
        yield service


async def _run(
    service: Service, plan: Plan, only: list[str], *, wrk_allowed: bool
) -> dict[str, Any]:
    async with (
        opened(service, plan, wrk_allowed=wrk_allowed) as opened_bench,
        baseline_database(service.database_url) as baselines_url,
    ):
        run = Run(opened_bench, plan, only)
        circumstances = await _circumstances(opened_bench, plan)
        steps = [*run.service_steps(), *run.baseline_steps(baselines_url)]
        with Reporter(console, len(steps)) as reporter:
            for name, step in steps:
                await _do(reporter, name, step)
        return results.document_of(circumstances, run.found)


async def _do(reporter: Reporter, name: str, step: Callable[[], Awaitable[str]]) -> None:
    with reporter.step(name):
        summary = await step()
    reporter.print_line(f"{name}: {summary}" if summary else name)


async def _circumstances(bench: Bench, plan: Plan) -> Circumstances:
    return Circumstances(
        mode=plan.mode,
        commit=commit(),
        machine=this_machine(),
        versions=versions(),
        postgres=await bench.ledger.settings(POSTGRES_SETTINGS),
        service={"shards": bench.service.shard_count()},
        generator="wrk" if bench.wrk_allowed else "Python",
        notes=() if bench.wrk_allowed else (PYTHON_GENERATOR_NOTE.strip(),),
    )


def _leave(document: dict[str, Any], output: Path, *, is_page: bool) -> None:
    """Write the JSON, pictures, report, and the README results of a full run."""
    results.write(document, output / "latest.json")
    pictures = plots.draw(document, output)
    report.write_report(document, pictures, output / "report.html")
    if is_page:
        readme_results.update(document)
    console.print(f"\nWritten: {output / 'latest.json'}, {output / 'report.html'}", highlight=False)


if __name__ == "__main__":
    app()
