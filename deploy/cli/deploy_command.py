"""`wallet deploy`: check everything, show what changes, deploy, and follow it to its end."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import typer
from rich.console import Console

from deploy.cli.placement_view import (
    render_changes,
    render_placement,
    render_room,
    unevenness,
)
from deploy.cli.stack_commands import running_settings
from deploy.cluster import configuration as files
from deploy.cluster.checks import DeploymentRefused, Plan, check
from deploy.cluster.configuration import Configuration
from deploy.cluster.driver import connected
from deploy.cluster.rest import RestCluster
from deploy.cluster.rollout import DeploymentTimedOut, Rollout
from deploy.cluster.state import Cluster
from deploy.local.errors import StackError
from deploy.local.progress import Progress
from deploy.local.ray_environment import serve_environment
from deploy.local.serve_deployer import begin
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings
from serve_app.applications import API, PROJECTIONS

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_TIMED_OUT: Final = 4
EXIT_INTERRUPTED: Final = 130

NAMES: Final = (API, PROJECTIONS)
"""What `wallet deploy` accepts instead of a file: one application, from this shell's settings."""


class Options(NamedTuple):
    """Options of the command."""

    yes: bool = False
    """Don't ask."""
    dry_run: bool = False
    """Check, show, and end."""
    remove: bool = False
    """Remove applications that the file does not name."""
    timeout_s: float = 300.0


def deploy(
    what: str,
    address: str,
    options: Options,
    *,
    settings: Settings,
    state_dir: StateDirectory,
    console: Console,
) -> int:
    """Deploy a file, an application, or both applications (empty); returns the exit code."""
    try:
        if not address:
            address, settings = _local_stack(settings, state_dir, required=not _is_file(what))
        configuration = _configuration(what, settings)
        _check_addresses(address, settings)
        with opened_cluster(address) as cluster:
            configuration = _for_cluster(configuration, cluster, settings)
            with Progress(console) as steps:
                plan = check(configuration, cluster, settings, steps.step)
            _show(plan, console)
            if plan.changes.removed and not options.remove:
                raise _would_remove(plan)
            if options.dry_run:
                return 0
            if plan.changes.is_empty:
                return _follow_ongoing(configuration, cluster, plan, options.timeout_s, console)
            if configuration.raw is not None and not options.yes:
                _confirm()
            return _carry_out(configuration, cluster, plan, settings, options.timeout_s, console)
    except StackError as refused:
        _print_error(refused)
        typer.echo("Nothing was changed.", err=True)
        return EXIT_REFUSED


@contextmanager
def opened_cluster(address: str) -> Iterator[Cluster]:
    """The cluster at ``address``."""
    opened = nullcontext(RestCluster(address)) if _is_url(address) else connected(address)
    with opened as cluster:
        yield cluster


def _local_stack(
    settings: Settings, state_dir: StateDirectory, *, required: bool
) -> tuple[str, Settings]:
    """Address and settings of the local stack; no address if it does not run.

    Sets Ray's environment, which Ray reads at its import: a file is validated with Ray's schema.
    """
    if "ray" not in state_dir.load().alive_processes():
        if required:
            _check_addresses("", settings)
        return "", settings
    settings = running_settings(settings, state_dir)
    os.environ.update(serve_environment(settings, state_dir))
    return os.environ["RAY_ADDRESS"], settings


def _check_addresses(address: str, settings: Settings) -> None:
    if not address:
        raise DeploymentRefused(
            "No local Ray cluster is running. Start the stack with `wallet up`, or pass --address."
        )
    if not (settings.database_url and settings.nats_url):
        raise DeploymentRefused(
            "Set WALLET_DATABASE_URL and WALLET_NATS_URL as on the nodes of the cluster."
        )


def _is_file(what: str) -> bool:
    return what not in ("", *NAMES) or Path(what).is_file()


def _configuration(what: str, settings: Settings) -> Configuration:
    if _is_file(what):
        return files.read(Path(what))
    return files.from_settings(settings, [what] if what else NAMES)


def _for_cluster(
    configuration: Configuration, cluster: Cluster, settings: Settings
) -> Configuration:
    """With the addresses of the local stack, if it is the shell's settings that are deployed."""
    if configuration.raw is not None:
        return configuration
    if isinstance(cluster, RestCluster):
        raise DeploymentRefused(
            f"{cluster.address} takes a file: `wallet deploy FILE --address {cluster.address}`. "
            "Settings of a shell are deployed from a node, with --address HEAD:6379."
        )
    return files.from_settings(settings, list(configuration.applications))


def _would_remove(plan: Plan) -> DeploymentRefused:
    names = ", ".join(sorted(plan.changes.removed))
    return DeploymentRefused(
        f"This would remove {names}, which the file does not name. Name them, or pass --remove."
    )


def _is_url(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _show(plan: Plan, console: Console) -> None:
    console.print()
    console.print(render_changes(plan.changes))
    if plan.changes.is_empty:
        lines = [
            f"{name} is {found.status}."
            for name, found in plan.state.applications.items()
            if found.status != "RUNNING"
        ]
        uneven = unevenness(plan.state)
        lines += uneven
        if uneven:
            lines.append("Change `revision` in the file to deploy the same configuration again.")
    else:
        console.print()
        console.print(render_room(plan.room))
        lines = [f"Needs {plan.connections}.", *plan.notes]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _confirm() -> None:
    if not sys.stdin.isatty():
        typer.echo("Pass --yes to deploy without a question.", err=True)
        raise typer.Exit(EXIT_USAGE)
    if not typer.confirm("Deploy?"):
        raise DeploymentRefused("Not confirmed.")


def _carry_out(
    configuration: Configuration,
    cluster: Cluster,
    plan: Plan,
    settings: Settings,
    timeout_s: float,
    console: Console,
) -> int:
    def begin_it() -> None:
        if configuration.raw is not None:
            cluster.deploy(configuration.raw)
        else:
            begin(settings, tuple(configuration.applications))

    follow = partial(
        Rollout,
        cluster,
        before=plan.state,
        applications=plan.changes.applications,
        demand=plan.demand,
    )
    return _followed(begin_it, follow, timeout_s, console)


def _follow_ongoing(
    configuration: Configuration, cluster: Cluster, plan: Plan, timeout_s: float, console: Console
) -> int:
    """Nothing is to be deployed: follow what is still being deployed, if anything is."""
    ongoing = plan.state.being_deployed & configuration.applications.keys()
    if not ongoing:
        return 0
    console.print("Following the deployment that is going on.", highlight=False)
    follow = partial(
        Rollout,
        cluster,
        before=None,
        applications=ongoing,
        demand=configuration.only(ongoing).demand,
    )
    return _followed(lambda: None, follow, timeout_s, console)


def _followed(
    begin_it: Callable[[], None],
    rollout: Callable[..., Rollout],
    timeout_s: float,
    console: Console,
) -> int:
    """Begin, and tell how it goes on; returns the exit code."""
    began_s = time.monotonic()

    def report(text: str) -> None:
        elapsed_s = time.monotonic() - began_s
        console.print(f"{elapsed_s:5.0f} s  {text}", highlight=False, markup=False)

    try:
        begin_it()
        follower = rollout(report=report, clock=time.monotonic, sleep=time.sleep)
        state = follower.follow(timeout_s=timeout_s)
    except DeploymentTimedOut as late:
        _print_error(late)
        return EXIT_TIMED_OUT
    except StackError as failure:
        _print_error(failure)
        return EXIT_FAILED
    except KeyboardInterrupt:
        typer.echo("Interrupted. The cluster goes on with the deployment.", err=True)
        return EXIT_INTERRUPTED
    took_s = time.monotonic() - began_s
    console.print(f"\n[green]Deployed[/green] in {took_s:.0f} s.", highlight=False)
    console.print(render_placement(state))
    return 0


def _print_error(failure: StackError) -> None:
    console = Console(stderr=True)
    for line in str(failure).splitlines():
        console.print("[red]Error:[/red]", line, highlight=False, markup=True, soft_wrap=True)
