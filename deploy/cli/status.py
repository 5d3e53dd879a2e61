"""`wallet status`: processes, readiness, and statistics of the running service."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.cli.stack_commands import running_settings
from deploy.cli.status_view import render_status
from deploy.local.errors import StackError
from deploy.local.processes import is_alive
from deploy.local.ray_environment import serve_environment
from deploy.local.readiness_client import Readiness, fetch_readiness
from deploy.local.servers import without_password
from deploy.local.state_dir import Stack, StateDirectory
from deploy.local.status_source import StatusSnapshot, StatusSource, status_source
from runtime.settings import Settings

_SAMPLE_INTERVAL_S: Final = 1.0
"""Rates are measured over this time."""


def status(settings: Settings, state_dir: StateDirectory, console: Console) -> bool:
    """Print the status once; true if the service is ready."""
    stack = state_dir.load()
    if not stack.processes:
        console.print("Nothing is running.")
        return False
    readiness = fetch_readiness(stack.http_url)
    console.print(_processes(stack, readiness))
    console.print(_state(stack, readiness))
    console.print(f"Events: {without_password(stack.nats_url)}", highlight=False)
    try:
        with (
            console.status("Collecting statistics …"),
            _local_source(settings, state_dir) as source,
        ):
            before = source.snapshot()
            time.sleep(_SAMPLE_INTERVAL_S)
            now = source.snapshot()
    except StackError as failure:
        console.print(Text(str(failure), style="red"))
        return False
    console.print()
    console.print(render_status(before, now))
    return readiness.is_ready


def watch(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Show the statistics, refreshed every second, until interrupted."""
    stack = state_dir.load()
    with _local_source(settings, state_dir) as source, Live(console=console, screen=True) as live:
        for before, now in _snapshots(source):
            live.update(_live_page(stack, before, now), refresh=True)


def _snapshots(source: StatusSource) -> Iterator[tuple[StatusSnapshot, StatusSnapshot]]:
    before = source.snapshot()
    while True:
        time.sleep(_SAMPLE_INTERVAL_S)
        now = source.snapshot()
        yield before, now
        before = now


def _live_page(stack: Stack, before: StatusSnapshot, now: StatusSnapshot) -> RenderableType:
    heading = Text.assemble(
        _state(stack, fetch_readiness(stack.http_url)),
        f"   {time.strftime('%X')}   Ctrl-C to quit",
    )
    return Group(heading, Text(), render_status(before, now))


@contextmanager
def _local_source(settings: Settings, state_dir: StateDirectory) -> Iterator[StatusSource]:
    if "ray" not in state_dir.load().alive_processes():
        raise StackError("Ray is not running. Start the stack with `wallet up` (make up).")
    os.environ.update(serve_environment(running_settings(settings, state_dir), state_dir))
    with status_source(os.environ["RAY_ADDRESS"]) as source:
        yield source


def _processes(stack: Stack, readiness: Readiness) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("PROCESS", "PID", "STATE"):
        table.add_column(title)
    for name, process in stack.processes.items():
        if name in ("deploy", "drain"):
            continue  # short-lived
        state = "[green]running[/green]" if is_alive(process) else "[red]ended[/red]"
        table.add_row(name, str(process.pid), state)
    for part in readiness.parts:
        colour = "green" if part.is_ready else "red"
        table.add_row(f"· {part.name}", "", Text(part.detail, style=colour))
    return table


def _state(stack: Stack, readiness: Readiness) -> Text:
    text, colour = ("ready", "green") if readiness.is_ready else ("not ready", "red")
    return Text.assemble(f"{stack.http_url} is ", (text, colour))
