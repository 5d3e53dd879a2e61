"""`wallet status`: processes, readiness, and statistics of the running service."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.cli.load_figures import ServiceLoad, load_between
from deploy.cli.stack_commands import running_settings
from deploy.cli.status_view import render_status
from deploy.local.errors import StackError
from deploy.local.processes import ProcessRecord, is_alive
from deploy.local.ray_environment import serve_environment
from deploy.local.readiness_client import Readiness, fetch_readiness
from deploy.local.servers import without_password
from deploy.local.state_dir import Stack, StateDirectory
from deploy.local.status_source import StatusSnapshot, StatusSource, status_source
from runtime.settings import Settings

_SHORT_LIVED: Final = ("deploy", "drain")

_SAMPLE_INTERVAL_S: Final = 1.0
"""Rates are measured over this time."""


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the local stack."""

    name: str
    pid: int
    running: bool


class ComponentState(msgspec.Struct, frozen=True, kw_only=True):
    """A component of the service, as GET /readyz describes it."""

    name: str
    ready: bool
    detail: str


class StatusDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `wallet status --json` prints."""

    ready: bool
    url: str
    events: str
    """Address of the NATS server, without credentials."""
    processes: list[ProcessState]
    components: list[ComponentState]
    load: ServiceLoad | None
    """None: there are no statistics, because Ray is not running."""


def status_as_json(settings: Settings, state_dir: StateDirectory) -> tuple[str, bool]:
    """The status as JSON; true if the service is ready."""
    stack = state_dir.load()
    readiness = fetch_readiness(stack.http_url) if stack.processes else Readiness(is_ready=False)
    load = _load(settings, state_dir) if stack.processes else None
    document = StatusDocument(
        ready=readiness.is_ready and load is not None,
        url=stack.http_url,
        events=without_password(stack.nats_url),
        processes=[
            ProcessState(name=name, pid=process.pid, running=is_alive(process))
            for name, process in _lasting(stack)
        ],
        components=[
            ComponentState(name=part.name, ready=part.is_ready, detail=part.detail)
            for part in readiness.parts
        ],
        load=load,
    )
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=2)
    return encoded.decode(), document.ready


def _load(settings: Settings, state_dir: StateDirectory) -> ServiceLoad | None:
    try:
        with _local_source(settings, state_dir) as source:
            before, now = next(_snapshots(source))
    except StackError:
        return None
    return load_between(before, now)


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
            before, now = next(_snapshots(source))
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


def _lasting(stack: Stack) -> Iterator[tuple[str, ProcessRecord]]:
    """The stack's processes but those that end by themselves."""
    return ((name, one) for name, one in stack.processes.items() if name not in _SHORT_LIVED)


def _processes(stack: Stack, readiness: Readiness) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("PROCESS", "PID", "STATE"):
        table.add_column(title)
    for name, process in _lasting(stack):
        state = "[green]running[/green]" if is_alive(process) else "[red]ended[/red]"
        table.add_row(name, str(process.pid), state)
    for part in readiness.parts:
        colour = "green" if part.is_ready else "red"
        table.add_row(f"· {part.name}", "", Text(part.detail, style=colour))
    return table


def _state(stack: Stack, readiness: Readiness) -> Text:
    text, colour = ("ready", "green") if readiness.is_ready else ("not ready", "red")
    return Text.assemble(f"{stack.http_url} is ", (text, colour))
