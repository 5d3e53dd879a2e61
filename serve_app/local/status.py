"""`wallet status`: which processes run, whether they are ready, and the service at a glance."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serve_app.local.commands import running_settings
from serve_app.local.errors import StackError
from serve_app.local.glance import glance
from serve_app.local.home import Home, Stack
from serve_app.local.observer import Look, Observer, observer
from serve_app.local.processes import is_alive
from serve_app.local.ray_environment import serve_environment
from serve_app.local.readiness import Readiness, ask
from wallet.settings import Settings

_BETWEEN_LOOKS_S: Final = 1.0
"""Rates are over this time."""


def status(settings: Settings, home: Home, console: Console) -> bool:
    """Show everything once; true if the service is ready."""
    stack = home.load()
    if not stack.processes:
        console.print("Nothing is running.")
        return False
    readiness = ask(stack.http_url)
    console.print(_processes(stack, readiness))
    console.print(_state(stack, readiness))
    try:
        with console.status("Asking the shards …"), _local_observer(settings, home) as service:
            before = service.look()
            time.sleep(_BETWEEN_LOOKS_S)
            now = service.look()
    except StackError as failure:
        console.print(Text(str(failure), style="red"))
        return False
    console.print()
    console.print(glance(before, now))
    return readiness.is_ready


def watch(settings: Settings, home: Home, console: Console) -> None:
    """Show the service at a glance, anew every second, until interrupted."""
    stack = home.load()
    with _local_observer(settings, home) as service, Live(console=console, screen=True) as live:
        for before, now in _looks(service):
            live.update(_page(stack, before, now), refresh=True)


def _looks(service: Observer) -> Iterator[tuple[Look, Look]]:
    before = service.look()
    while True:
        time.sleep(_BETWEEN_LOOKS_S)
        now = service.look()
        yield before, now
        before = now


def _page(stack: Stack, before: Look, now: Look) -> RenderableType:
    heading = Text.assemble(
        _state(stack, ask(stack.http_url)), f"   {time.strftime('%X')}   Ctrl-C ends this"
    )
    return Group(heading, Text(), glance(before, now))


@contextmanager
def _local_observer(settings: Settings, home: Home) -> Iterator[Observer]:
    if "ray" not in home.load().living():
        raise StackError("Ray is not running: start the stack with `wallet up` (make up).")
    os.environ.update(serve_environment(running_settings(settings, home), home))
    with observer(os.environ["RAY_ADDRESS"]) as service:
        yield service


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
    words, colour = ("ready", "green") if readiness.is_ready else ("not ready", "red")
    return Text.assemble(f"{stack.http_url} is ", (words, colour))
