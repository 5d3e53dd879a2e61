"""The commands `wallet up|down|clean|migrate|…`, one function each."""

import shutil
from pathlib import Path

from rich.console import Console

from deploy.cli.quick_start import print_quick_start
from deploy.local.errors import StackError
from deploy.local.postgres_layout import remove_data
from deploy.local.processes import is_alive
from deploy.local.progress import Progress
from deploy.local.readiness_client import fetch_readiness
from deploy.local.servers import migrate as migrate_database
from deploy.local.servers import without_password
from deploy.local.shutdown import stop_stack
from deploy.local.stack_state import StackState
from deploy.local.startup import start_stack
from deploy.local.state_dir import Stack, StateDirectory
from runtime.settings import Settings


def up(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Start the stack unless it already runs, then print the quick start."""
    state_dir.create()
    with Progress(console) as steps, state_dir.locked(lambda: steps.message(_WAITING)):
        stack = state_dir.load()
        already = _is_up(stack)
        if already:
            _check_ready(stack)
        else:
            recorder = StackState(state_dir, stack)
            if stop_stack(settings, state_dir, recorder, steps):
                steps.message("Stopped what was left over from an earlier start")
            start_stack(settings, state_dir, recorder, steps)
    stack = state_dir.load()
    print_quick_start(
        console,
        stack.http_url,
        events=without_password(stack.nats_url),
        already=already,
        keys=settings.auth == "required",
    )


def down(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Stop what `up` started, gracefully."""
    if not state_dir.root.exists():
        console.print("Nothing is running.")
        return
    with Progress(console) as steps, state_dir.locked(lambda: steps.message(_WAITING)):
        stopped = stop_stack(settings, state_dir, StackState(state_dir, state_dir.load()), steps)
    console.print(
        "The wallet service is down. Its data is kept." if stopped else "Nothing is running."
    )


def clean(state_dir: StateDirectory, console: Console) -> None:
    """Remove the state directory; refused while anything runs."""
    if not state_dir.root.exists():
        console.print("Nothing to remove.")
        return
    with state_dir.locked(lambda: console.print(_WAITING)):
        stack = state_dir.load()
        if stack.alive_processes():
            raise StackError("The stack is running. Stop it first with `wallet down` (make down).")
        remove_data(state_dir.postgres)
        if stack.sockets is not None:
            shutil.rmtree(stack.sockets, ignore_errors=True)
        shutil.rmtree(state_dir.root, ignore_errors=True)
    console.print(f"Removed {state_dir.root} and all wallets in it.")


def migrate(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Migrate the schema of the database in use."""
    url = running_settings(settings, state_dir).database_url
    with Progress(console) as steps:
        migrate_database(url, steps)


def running_settings(settings: Settings, state_dir: StateDirectory) -> Settings:
    """The settings; addresses that are not set are those of the running stack."""
    stack = state_dir.load()
    servers = stack.alive_processes()
    found = {}
    if not settings.database_url and "postgres" in servers:
        found["database_url"] = stack.database_url
    if not settings.nats_url and "nats" in servers:
        found["nats_url"] = stack.nats_url
    settings = settings.model_copy(update=found)
    if not settings.database_url:
        raise StackError(
            "No database is running. Start one with `wallet up`, or set WALLET_DATABASE_URL."
        )
    return settings


def _is_up(stack: Stack) -> bool:
    """Whether an earlier start completed and all of its processes still run."""
    return stack.is_complete and all(
        is_alive(process)
        for name, process in stack.processes.items()
        if name not in ("deploy", "drain")
    )


def _check_ready(stack: Stack) -> None:
    readiness = fetch_readiness(stack.http_url)
    if not readiness.is_ready:
        raise StackError(
            f"The wallet service is running but not ready ({readiness.summary}). Wait, check "
            "`wallet logs`, or restart it with `wallet down` (make down) and `wallet up`."
        )


_WAITING = "Waiting for another `wallet` command to finish"


def rebuild_projections(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Rebuild the projections from the journal."""
    import asyncio

    from projections.rebuild import rebuild

    settings = running_settings(settings, state_dir)
    with (
        Progress(console) as steps,
        steps.step("Rebuilding the projections", "The projections are rebuilt"),
    ):
        asyncio.run(rebuild(settings))


def show_dead_letters(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Print one line per dead letter, with its reason."""
    import asyncio

    from projections.dead_letters import list_dead_letters

    letters = asyncio.run(list_dead_letters(running_settings(settings, state_dir)))
    for letter in letters:
        console.print(f"{letter.subject}  {letter.event_id}  {letter.reason}", highlight=False)
    console.print(f"{len(letters)} dead letters.")


def replay_dead_letters(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Apply the dead letters again."""
    import asyncio

    from projections.dead_letters import replay

    applied, remaining = asyncio.run(replay(running_settings(settings, state_dir)))
    console.print(f"{applied} events applied, {remaining} dead letters remain.")


def recover(
    settings: Settings,
    state_dir: StateDirectory,
    console: Console,
    wallet: str,
    output: Path | None,
    *,
    apply_again: bool | None,
) -> None:
    """List the events that the database lost, and resolve them."""
    import asyncio

    from deploy.cli.recover import recover as run
    from wallet.ids import WalletId, canonical_uuid

    wallet_id = canonical_uuid(wallet)
    if wallet and wallet_id is None:
        raise StackError(f"{wallet} is no wallet id.")
    asyncio.run(
        run(
            running_settings(settings, state_dir).database_url,
            console,
            wallet_id=WalletId(wallet_id) if wallet_id else None,
            output=output,
            apply_again=apply_again,
        )
    )


def verify(
    settings: Settings,
    state_dir: StateDirectory,
    *,
    stream: bool,
    lag_max_s: float,
    against: Path | None = None,
    as_json: bool = False,
) -> int:
    """Check the running service; returns the exit code."""
    from verification.runner import Options, run

    settings = running_settings(settings, state_dir)
    options = Options(
        database_url=settings.database_url,
        nats_url=settings.nats_url if stream else "",
        stream=settings.stream_name,
        lag_max_s=lag_max_s,
        against=against,
        as_json=as_json,
    )
    return run(options, Console(), Console(stderr=True))


def digest(settings: Settings, state_dir: StateDirectory, *, output: Path | None) -> int:
    """Print a digest of the running service's ledger; returns the exit code."""
    from verification.runner import print_digest

    url = running_settings(settings, state_dir).database_url
    return print_digest(url, output, Console(), Console(stderr=True))
