"""The `wallet` command. Each command imports deploy.local only when it runs."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from deploy.cli import events, keys
from deploy.cli.context import console as _console
from deploy.cli.context import settings as _settings
from deploy.cli.context import state_dir as _state_dir
from deploy.local.errors import StackError
from runtime.postgres.errors import OPERATOR_ERRORS
from runtime.unknown_variables import unknown_variables
from runtime.version import VERSION

app = typer.Typer(
    name="wallet",
    help="Run the wallet service. Settings are read from the environment (WALLET_…).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(keys.app, name="keys")
app.add_typer(events.app, name="events")

DEFAULT_URL: Final = "http://localhost:8089"

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_ADDRESS", help="Address of the Ray cluster. Default: the local stack."
    ),
]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"wallet {VERSION}")
        raise typer.Exit


@app.callback()
def warn_of_unknown_variables(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Run the wallet service. Settings are read from the environment (WALLET_…)."""
    for sentence in unknown_variables(os.environ):
        typer.echo(f"Warning: {sentence}", err=True)


@app.command()
def up() -> None:
    """Start the service on this machine and wait until it is ready."""
    from deploy.cli.stack_commands import up as start

    try:
        start(_settings(), _state_dir(), _console())
    except KeyboardInterrupt:
        typer.echo("Interrupted. `wallet down` (make down) stops what was started.", err=True)
        raise typer.Exit(130) from None


@app.command()
def down() -> None:
    """Finish requests in flight, then stop the service. Data is kept."""
    from deploy.cli.stack_commands import down as stop

    stop(_settings(), _state_dir(), _console())


@app.command()
def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every second, until Ctrl-C.")
    ] = False,
    address: Annotated[
        str,
        typer.Option(
            help="Show a cluster: http://HEAD:8265 from anywhere, or HEAD:6379 on one of its "
            "nodes. Default: the local stack."
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the status of the local stack as JSON, once.")
    ] = False,
) -> None:
    """Show processes, placement, readiness and load. Exit code 1 if the service is not ready."""
    from deploy.cli import status as page

    if as_json:
        if watch or address:
            raise typer.BadParameter("--json is for the local stack, once")
        document, is_ready = page.status_as_json(_settings(), _state_dir())
        typer.echo(document)
        if not is_ready:
            raise typer.Exit(1)
        return
    if address:
        from deploy.cli.cluster_status import cluster_status

        if not cluster_status(address, _console(), watch=watch):
            raise typer.Exit(1)
        return
    if not watch:
        if not page.status(_settings(), _state_dir(), _console()):
            raise typer.Exit(1)
        return
    with suppress(KeyboardInterrupt):
        page.watch(_settings(), _state_dir(), _console())


@app.command()
def logs(
    name: Annotated[
        str | None,
        typer.Argument(help="postgres, nats, ray, deploy, serve, service. Default: all."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="Number of lines per log.")
    ] = 20,
    request: Annotated[
        str, typer.Option(help="Only the lines about this request id, from whole logs.")
    ] = "",
) -> None:
    """Show the last lines of the stack's logs."""
    from deploy.cli import log_viewer

    files = log_viewer.files_of(_state_dir(), name)
    if request:
        found = list(log_viewer.lines_with(files, request))
        for line in found:
            typer.echo(line)
        if not found:
            typer.echo("No line of these logs has this request id.", err=True)
            raise typer.Exit(1)
        return
    for line in log_viewer.last_lines(files, lines):
        typer.echo(line)
    if follow:
        for line in log_viewer.new_lines(files):
            typer.echo(line)


@app.command()
def demo(
    url: Annotated[
        str, typer.Option(envvar="WALLET_URL", help="The service. Default: the local stack.")
    ] = "",
    api_key: Annotated[
        str,
        typer.Option(envvar="WALLET_API_KEY", help="Key with wallets:read and wallets:write."),
    ] = "",
) -> None:
    """Fill a running service with a day of a small shop. A second run changes nothing."""
    from deploy.cli.demo import demo as play

    play(url or _state_dir().load().http_url or DEFAULT_URL, api_key, _console())


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
) -> None:
    """Remove all data and logs of the local stack."""
    from deploy.cli.stack_commands import clean as remove

    state_dir = _state_dir()
    if state_dir.root.exists() and not yes:
        typer.confirm(f"Remove {state_dir.root} and all wallets in it?", abort=True)
    remove(state_dir, _console())


@app.command()
def migrate() -> None:
    """Migrate the database schema to the latest revision."""
    from deploy.cli.stack_commands import migrate as run

    run(_settings(), _state_dir(), _console())


@app.command()
def deploy(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|api|projections",
            help="A Serve configuration such as deploy/serve.yaml; or one application, from the "
            "settings of this shell. Default: both, from the settings of this shell.",
        ),
    ] = "",
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="The cluster: http://HEAD:8265 from anywhere, or HEAD:6379 on one of its nodes. "
            "Default: the local stack.",
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, show what would change, and end.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove applications that the file does not name.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until every application must run.")
    ] = 300.0,
) -> None:
    """Check a deployment, show what it changes, deploy, and wait for its end.

    Exit code 0: deployed, or nothing changes. 1: it failed. 2: wrong usage. 3: refused, nothing was
    changed. 4: not finished in time; the version before serves until it is.
    """
    from deploy.cli.deploy_command import Options
    from deploy.cli.deploy_command import deploy as run

    options = Options(yes=yes, dry_run=dry_run, remove=remove, timeout_s=timeout)
    code = run(
        what,
        address,
        options,
        settings=_settings(),
        state_dir=_state_dir(),
        console=_console(),
    )
    if code:
        raise typer.Exit(code)


@app.command(name="api", hidden=True)
def former_api(address: Address = "") -> None:
    """Former name of `wallet deploy api`, for one release."""
    typer.echo("`wallet api` is now called `wallet deploy api`.", err=True)
    deploy("api", address)


@app.command(name="worker", hidden=True)
def former_worker(address: Address = "") -> None:
    """Former name of `wallet deploy projections`, for one release."""
    typer.echo("`wallet worker` is now called `wallet deploy projections`.", err=True)
    deploy("projections", address)


@app.command()
def rebuild_projections() -> None:
    """Rebuild the projections from the journal, online."""
    from deploy.cli.stack_commands import rebuild_projections as rebuild

    rebuild(_settings(), _state_dir(), _console())


@app.command()
def dead_letters(
    replay: Annotated[
        bool, typer.Option("--replay", help="Apply them again, after fixing the cause.")
    ] = False,
) -> None:
    """List dead letters: events that the projections could not process."""
    from deploy.cli.stack_commands import replay_dead_letters, show_dead_letters

    act = replay_dead_letters if replay else show_dead_letters
    act(_settings(), _state_dir(), _console())


@app.command()
def recover(
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Apply the lost events again where the rules allow it."),
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Give the lost events up.")
    ] = False,
    wallet: Annotated[str, typer.Option(help="Only this wallet.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write the lost events to this new file, one per line.")
    ] = None,
) -> None:
    """List what the database lost and the stream still has, and decide what becomes of it.

    Without --replay or --accept-loss nothing is changed.
    """
    from deploy.cli.stack_commands import recover as run

    if replay and accept_loss:
        raise typer.BadParameter("choose one of --replay and --accept-loss")
    apply_again = replay if replay or accept_loss else None
    run(_settings(), _state_dir(), _console(), wallet, output, apply_again=apply_again)


@app.command()
def specification(
    folder: Annotated[
        Path | None, typer.Argument(help="Output folder. Default: the checkout's specification/.")
    ] = None,
) -> None:
    """Generate the OpenAPI document and the event schemas from the code."""
    from specification.generators.openapi import FOLDER, write

    target = folder or FOLDER
    written = write(target)
    for path in written:
        typer.echo(f"written: {target / path}")
    if not written:
        typer.echo("Nothing to write: the documents are up to date.")


@app.command()
def verify(
    stream: Annotated[
        bool, typer.Option("--stream", help="Also compare the event stream.")
    ] = False,
    lag_max_s: Annotated[
        float,
        typer.Option(min=0, help="Projection lag, in seconds, that is not a violation."),
    ] = 300.0,
    against: Annotated[
        Path | None,
        typer.Option(
            help="File of an earlier `wallet digest --output`, its heads beside it: also prove "
            "that nothing up to it was changed."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all that was found.")
    ] = False,
) -> None:
    """Check ledger consistency online.

    Exit code 1 if there are violations, 2 if the check failed.
    """
    from deploy.cli.stack_commands import verify as run_check
    from verification.runner import EXIT_ERROR

    try:
        code = run_check(
            _settings(),
            _state_dir(),
            stream=stream,
            lag_max_s=lag_max_s,
            against=against,
            as_json=as_json,
        )
    except StackError as failure:
        typer.echo(f"Error: {failure}", err=True)
        code = EXIT_ERROR
    if code:
        raise typer.Exit(code)


@app.command()
def digest(
    output: Annotated[
        Path | None,
        typer.Option(help="Also write it to this file, and the wallets' heads to FILE.heads.gz."),
    ] = None,
) -> None:
    """Print one hash over all wallets' histories, to keep outside of the database.

    `wallet verify --against FILE` proves later that nothing up to it was changed. The service may
    write meanwhile. Exit code 2 if it failed.
    """
    from deploy.cli.stack_commands import digest as take
    from verification.runner import EXIT_ERROR

    try:
        code = take(_settings(), _state_dir(), output=output)
    except StackError as failure:
        typer.echo(f"Error: {failure}", err=True)
        code = EXIT_ERROR
    if code:
        raise typer.Exit(code)


def main() -> None:
    """Entry point. An error that an operator can act on is printed as one line."""
    try:
        app()
    except (StackError, *OPERATOR_ERRORS) as failure:
        text = f"[red]Error:[/red] {escape(str(failure))}"
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)
        sys.exit(1)
