"""PostgreSQL and NATS: the embedded servers, or those that the settings name."""

import asyncio

from deploy.local import nats, postgres
from deploy.local.errors import StackError
from deploy.local.log_files import rotate
from deploy.local.postgres_layout import resolve_layout
from deploy.local.progress import Progress
from deploy.local.stack_state import StackState
from deploy.local.state_dir import Stack, StateDirectory, assign_ports
from runtime.postgres.dsn import PostgresDsn
from runtime.settings import Settings

_NATS_TIMEOUT_S = 5.0


def postgres_options(state_dir: StateDirectory, stack: Stack) -> postgres.PostgresOptions:
    """The embedded PostgreSQL of this state directory, with its port assigned."""
    place = resolve_layout(state_dir.postgres)
    return postgres.PostgresOptions(
        place=place, port=stack.ports["postgres"], log_file=state_dir.log_of("postgres")
    )


def nats_options(state_dir: StateDirectory, stack: Stack, settings: Settings) -> nats.NatsOptions:
    """The embedded NATS of this state directory, with its port assigned."""
    return nats.NatsOptions(
        folder=state_dir.nats,
        port=stack.ports["nats"],
        log_file=state_dir.log_of("nats"),
        sync_s=settings.stream_sync_interval_s,
        stream=settings.stream_name,
    )


def assign_addresses(settings: Settings, state_dir: StateDirectory, stack: Stack) -> None:
    """Assign the addresses of PostgreSQL and NATS, before either runs."""
    stack.database_url = settings.database_url
    stack.nats_url = settings.nats_url
    if not settings.database_url:
        assign_ports(stack, ("postgres",))
        stack.database_url = postgres_options(state_dir, stack).url
    if not settings.nats_url:
        assign_ports(stack, ("nats",))
        stack.nats_url = nats_options(state_dir, stack, settings).url


def check_external_servers(settings: Settings, steps: Progress) -> None:
    """Check that the servers that the settings name respond, before anything is started."""
    if settings.database_url:
        with steps.step("Connecting to WALLET_DATABASE_URL", "Connected to PostgreSQL"):
            asyncio.run(_reach_postgres(settings))
    if settings.nats_url:
        with steps.step("Connecting to WALLET_NATS_URL", "Connected to NATS"):
            asyncio.run(_reach_nats(settings))


def start_postgres(state_dir: StateDirectory, recorder: StackState, steps: Progress) -> None:
    """Start the embedded PostgreSQL and wait for it."""
    options = postgres_options(state_dir, recorder.stack)
    if options.place.is_relocated:
        steps.message(f"PostgreSQL can't run as root: its data is in {options.place.parent}")
    rotate(options.log_file)
    with steps.step("Starting PostgreSQL 18", "PostgreSQL 18 is up"):
        postgres.initialise(options)
        process = postgres.start(options)
        recorder.add(process)
        postgres.wait_until_ready(options, process)


def start_nats(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    """Start the embedded NATS server and wait for it."""
    options = nats_options(state_dir, recorder.stack, settings)
    rotate(options.log_file)
    with steps.step("Starting NATS", "NATS with JetStream is up"):
        process = nats.start(options)
        recorder.add(process)
        nats.wait_until_ready(options, process)


def migrate(database_url: str, steps: Progress) -> None:
    """Migrate the database schema, and link wallets of releases that had no hash chain.

    A database that a newer release migrated is a message.
    """
    from actors.journal.postgres_chain import link_all_wallets
    from migrations.migrate import upgrade
    from migrations.revisions import note_on

    dsn = PostgresDsn.parse(database_url)
    with steps.step("Migrating the database", "The database is migrated"):
        try:
            newer = upgrade(database_url)
            asyncio.run(link_all_wallets(database_url))
        except Exception as failure:
            raise StackError(
                f"The database at {dsn} could not be migrated: {_first_line(failure)}"
            ) from failure
    if newer is not None:
        steps.message(note_on(newer))


def without_password(urls: str) -> str:
    """Comma-separated URLs of NATS servers without users, passwords and tokens, for display."""
    parts = [url.partition("://") for url in urls.split(",")]
    return ",".join(f"{scheme}://{rest.rpartition('@')[2]}" for scheme, _, rest in parts)


async def _reach_postgres(settings: Settings) -> None:
    from runtime.postgres.connect import CONNECT_ERRORS, connect

    try:
        connection = await connect(
            settings.database_url, timeout_s=settings.database_connect_timeout_s
        )
    except CONNECT_ERRORS as failure:
        raise StackError(
            "Can't connect to PostgreSQL with WALLET_DATABASE_URL "
            f"({_first_line(failure)}). Correct it, or unset it to start an embedded server."
        ) from failure
    await connection.close(timeout=settings.database_connect_timeout_s)


async def _reach_nats(settings: Settings) -> None:
    import nats as client
    from nats.errors import Error

    async def check() -> None:
        connection = await client.connect(
            settings.nats_url,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # includes the first attempt, which is otherwise unlimited
            error_cb=_ignore,
        )
        try:
            await connection.jetstream(timeout=_NATS_TIMEOUT_S).account_info()
        finally:
            await connection.close()

    try:
        await asyncio.wait_for(check(), timeout=2 * _NATS_TIMEOUT_S)
    except (OSError, Error, ValueError, TimeoutError) as failure:
        raise StackError(
            f"Can't connect to NATS with JetStream at {without_password(settings.nats_url)} "
            f"({_first_line(failure)}). Correct WALLET_NATS_URL (and start that server with -js), "
            "or unset it to start an embedded server."
        ) from failure


async def _ignore(_failure: Exception) -> None:
    """Without it the client prints a traceback per attempt; the last failure is raised anyway."""


def _first_line(failure: BaseException) -> str:
    return str(failure).strip().partition("\n")[0] or type(failure).__name__
