"""The servers that the service needs: ours, or those that the settings name."""

import asyncio
from urllib.parse import urlsplit

from deploy.local import nats, postgres
from deploy.local.errors import StackError
from deploy.local.log_files import rotate
from deploy.local.postgres_layout import resolve_layout
from deploy.local.progress import Progress
from deploy.local.stack_state import StackState
from deploy.local.state_dir import Stack, StateDirectory, assign_ports
from runtime.settings import Settings

_NATS_TIMEOUT_S = 5.0


def postgres_options(home: StateDirectory, stack: Stack) -> postgres.PostgresOptions:
    """The embedded PostgreSQL of this home, with its port assigned."""
    place = resolve_layout(home.postgres)
    return postgres.PostgresOptions(
        place=place, port=stack.ports["postgres"], log_file=home.log_of("postgres")
    )


def nats_options(home: StateDirectory, stack: Stack, *, sync_s: float) -> nats.NatsOptions:
    """The embedded NATS of this home, with its port assigned."""
    return nats.NatsOptions(
        folder=home.nats,
        port=stack.ports["nats"],
        log_file=home.log_of("nats"),
        sync_s=sync_s,
    )


def assign_addresses(settings: Settings, home: StateDirectory, stack: Stack) -> None:
    """Decide where PostgreSQL and NATS will be, before either runs."""
    stack.database_url = settings.database_url
    stack.nats_url = settings.nats_url
    if not settings.database_url:
        assign_ports(stack, ("postgres",))
        stack.database_url = postgres_options(home, stack).url
    if not settings.nats_url:
        assign_ports(stack, ("nats",))
        stack.nats_url = nats_options(home, stack, sync_s=settings.stream_sync_interval_s).url


def check_external_servers(settings: Settings, steps: Progress) -> None:
    """Insist that the servers that the settings name answer, before anything is started."""
    if settings.database_url:
        with steps.step("Reaching PostgreSQL", "PostgreSQL answers, as WALLET_DATABASE_URL says"):
            asyncio.run(_reach_postgres(settings))
    if settings.nats_url:
        with steps.step("Reaching NATS", "NATS answers, as WALLET_NATS_URL says"):
            asyncio.run(_reach_nats(settings))


def start_postgres(home: StateDirectory, recorder: StackState, steps: Progress) -> None:
    """Start the embedded PostgreSQL and wait for it."""
    options = postgres_options(home, recorder.stack)
    if options.place.is_relocated:
        steps.message(f"PostgreSQL can't work as root: its data is in {options.place.parent}")
    rotate(options.log_file)
    with steps.step("Starting PostgreSQL 18", "PostgreSQL 18 is up"):
        postgres.initialise(options)
        process = postgres.start(options)
        recorder.add(process)
        postgres.wait_until_ready(options, process)


def start_nats(
    settings: Settings, home: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    """Start the embedded NATS server and wait for it."""
    options = nats_options(home, recorder.stack, sync_s=settings.stream_sync_interval_s)
    rotate(options.log_file)
    with steps.step("Starting NATS", "NATS with JetStream is up"):
        process = nats.start(options)
        recorder.add(process)
        nats.wait_until_ready(options, process)


def migrate(database_url: str) -> None:
    """Bring the database's tables up to date."""
    from migrations.migrate import upgrade

    try:
        upgrade(database_url)
    except Exception as failure:
        told = str(failure).strip().partition("\n")[0]
        raise StackError(
            f"The database at {without_password(database_url)} could not be migrated: {told}"
        ) from failure


def without_password(url: str) -> str:
    """A server's address as it may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


async def _reach_postgres(settings: Settings) -> None:
    import asyncpg

    try:
        connection = await asyncpg.connect(
            settings.database_url, timeout=settings.database_connect_timeout_s
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as failure:
        raise StackError(
            "PostgreSQL can't be reached with WALLET_DATABASE_URL "
            f"({_first_line(failure)}): correct it, or leave it unset to have one started here."
        ) from failure
    await connection.close(timeout=settings.database_connect_timeout_s)


async def _reach_nats(settings: Settings) -> None:
    import nats as client
    from nats.errors import Error

    async def look() -> None:
        connection = await client.connect(
            settings.nats_url,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # counts the first attempt, which else never ends
            error_cb=_ignore,
        )
        try:
            await connection.jetstream(timeout=_NATS_TIMEOUT_S).account_info()
        finally:
            await connection.close()

    try:
        await asyncio.wait_for(look(), timeout=2 * _NATS_TIMEOUT_S)
    except (OSError, Error, ValueError, TimeoutError) as failure:
        raise StackError(
            f"NATS with JetStream can't be reached at {without_password(settings.nats_url)}, as "
            f"WALLET_NATS_URL says ({_first_line(failure)}): correct it (and start that server "
            "with -js), or leave it unset to have one started."
        ) from failure


async def _ignore(_failure: Exception) -> None:
    """The client would print a traceback for each attempt; the last failure is raised anyway."""


def _first_line(failure: BaseException) -> str:
    return str(failure).strip().partition("\n")[0] or type(failure).__name__
