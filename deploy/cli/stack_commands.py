"""What the commands `wallet up|down|status|logs|clean|migrate|…` do, one function each."""

import shutil

from rich.console import Console

from deploy.cli.quick_start import print_quick_start
from deploy.local.errors import StackError
from deploy.local.postgres_layout import remove_data
from deploy.local.processes import is_alive
from deploy.local.progress import Progress
from deploy.local.readiness_client import fetch_readiness
from deploy.local.servers import migrate as migrate_database
from deploy.local.shutdown import stop_stack
from deploy.local.stack_state import StackState
from deploy.local.startup import start_stack
from deploy.local.state_dir import Stack, StateDirectory
from runtime.settings import Settings


def up(settings: Settings, home: StateDirectory, console: Console) -> None:
    """Start the stack unless it runs; end by saying where it is and what to try."""
    home.create()
    with Progress(console) as steps, home.locked(lambda: steps.message(_WAITING)):
        stack = home.load()
        already = _is_up(stack)
        if already:
            _check_ready(stack)
        else:
            recorder = StackState(home, stack)
            if stop_stack(settings, home, recorder, steps):
                steps.message("That was left over from an earlier start")
            start_stack(settings, home, recorder, steps)
    print_quick_start(
        console, home.load().http_url, already=already, keys=settings.auth == "required"
    )


def down(settings: Settings, home: StateDirectory, console: Console) -> None:
    """Stop what `up` started, gracefully; says so if there was nothing."""
    if not home.root.exists():
        console.print("Nothing is running.")
        return
    with Progress(console) as steps, home.locked(lambda: steps.message(_WAITING)):
        stopped = stop_stack(settings, home, StackState(home, home.load()), steps)
    console.print(
        "The wallet service is down. Its data is kept." if stopped else "Nothing is running."
    )


def clean(home: StateDirectory, console: Console) -> None:
    """Remove everything that the home holds; refuses while anything runs."""
    if not home.root.exists():
        console.print("There is nothing to remove.")
        return
    with home.locked(lambda: console.print(_WAITING)):
        stack = home.load()
        if stack.alive_processes():
            raise StackError("The stack is running: `wallet down` (make down) first.")
        remove_data(home.postgres)
        if stack.sockets is not None:
            shutil.rmtree(stack.sockets, ignore_errors=True)
        shutil.rmtree(home.root, ignore_errors=True)
    console.print(f"Removed {home.root} with all wallets in it.")


def migrate(settings: Settings, home: StateDirectory, console: Console) -> None:
    """Bring the tables of the database in use up to date."""
    url = running_settings(settings, home).database_url
    with (
        Progress(console) as steps,
        steps.step("Migrating the database", "The database is migrated"),
    ):
        migrate_database(url)


def running_settings(settings: Settings, home: StateDirectory) -> Settings:
    """The settings with the addresses of the running stack where they name none."""
    stack = home.load()
    servers = stack.alive_processes()
    found = {}
    if not settings.database_url and "postgres" in servers:
        found["database_url"] = stack.database_url
    if not settings.nats_url and "nats" in servers:
        found["nats_url"] = stack.nats_url
    settings = settings.model_copy(update=found)
    if not settings.database_url:
        raise StackError(
            "No database is running: start one with `wallet up`, or set WALLET_DATABASE_URL."
        )
    return settings


def _is_up(stack: Stack) -> bool:
    """Whether an earlier start got to its end and everything that it started still runs."""
    return stack.is_complete and all(
        is_alive(process)
        for name, process in stack.processes.items()
        if name not in ("deploy", "drain")
    )


def _check_ready(stack: Stack) -> None:
    answer = fetch_readiness(stack.http_url)
    if not answer.is_ready:
        raise StackError(
            f"The wallet service runs but isn't ready ({answer.summary}): wait a little, look at "
            "`wallet logs`, or stop it with `wallet down` (make down) and start it again."
        )


_WAITING = "Another `wallet` command is changing the stack: waiting for it"


def deploy_onto(
    settings: Settings, home: StateDirectory, address: str, application: str, console: Console
) -> None:
    """Deploy one application onto the cluster at `address`, or onto the local stack's."""
    import os

    from deploy.local.ray_environment import serve_environment
    from deploy.local.serve_deployer import deploy

    if not address:
        if "ray" not in home.load().alive_processes():
            raise StackError(
                "No Ray cluster is running here: start the stack with `wallet up`, or say which "
                "one you mean with --address."
            )
        settings = running_settings(settings, home)
        os.environ.update(serve_environment(settings, home))  # before Ray is imported
        address = os.environ["RAY_ADDRESS"]
    elif not (settings.database_url and settings.nats_url):
        raise StackError(
            "Set WALLET_DATABASE_URL and WALLET_NATS_URL to servers that the cluster can reach."
        )
    with (
        Progress(console) as steps,
        steps.step(f"Deploying `{application}`", f"`{application}` is deployed"),
    ):
        deploy(settings, address, (application,))


def rebuild_projections(settings: Settings, home: StateDirectory, console: Console) -> None:
    """Build the read side anew from the journal."""
    import asyncio

    from projections.rebuild import rebuild

    settings = running_settings(settings, home)
    with (
        Progress(console) as steps,
        steps.step("Rebuilding the projections", "The projections are rebuilt"),
    ):
        asyncio.run(rebuild(settings))


def show_dead_letters(settings: Settings, home: StateDirectory, console: Console) -> None:
    """A line for each event that was put aside, with its reason."""
    import asyncio

    from projections.dead_letters import list_dead_letters

    letters = asyncio.run(list_dead_letters(running_settings(settings, home)))
    for letter in letters:
        console.print(f"{letter.subject}  {letter.event_id}  {letter.reason}", highlight=False)
    console.print(f"{len(letters)} dead letters.")


def replay_dead_letters(settings: Settings, home: StateDirectory, console: Console) -> None:
    """Fold again what was put aside."""
    import asyncio

    from projections.dead_letters import replay

    folded, remaining = asyncio.run(replay(running_settings(settings, home)))
    console.print(f"{folded} events were folded, {remaining} are still put aside.")


def verify(settings: Settings, home: StateDirectory, *, stream: bool, lag_max_s: float) -> int:
    """Run the checker on the service that runs; returns its exit code."""
    from verification.runner import Options, run

    settings = running_settings(settings, home)
    options = Options(
        database_url=settings.database_url,
        nats_url=settings.nats_url if stream else "",
        stream=settings.stream_name,
        lag_max_s=lag_max_s,
    )
    return run(options, Console(), Console(stderr=True))
