"""Real PostgreSQL and NATS servers for tests: containers where a Docker engine answers, else the
embedded binaries that `wallet up` uses. Never mocks.
"""

import gc
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from deploy.local import nats, postgres
from deploy.local.ports import free_port
from deploy.local.postgres_layout import remove_data, resolve_layout
from tests.support.reaper import killed_on_exit

POSTGRES_IMAGE = "postgres:18-alpine"
NATS_IMAGE = "nats:2.15-alpine"

_ENGINE_TIMEOUT_S = 3
_POSTGRES_COMMAND = (
    "postgres -c fsync=off -c synchronous_commit=off -c full_page_writes=off "
    "-c max_connections=200 -c jit=off"
)

notes: list[str] = []
"""Notes about the servers for the summary of the run."""


def docker_engine_answers() -> bool:
    """Whether a Docker engine is reachable, checked the way testcontainers does."""
    with _quiet():
        with suppress(Exception):
            return _ping()
        gc.collect()  # the client does not close a socket after a failed connection
    return False


def _ping() -> bool:
    import docker

    client = docker.from_env(timeout=_ENGINE_TIMEOUT_S)
    try:
        return bool(client.ping())
    finally:
        client.close()


@contextmanager
def postgres_server(*, use_docker: bool) -> Iterator[str]:
    """DSN of a fresh server's default database, whose user may create databases."""
    with _server("PostgreSQL", use_docker, _container_postgres, _embedded_postgres) as url:
        yield url


@contextmanager
def nats_server(*, use_docker: bool) -> Iterator[str]:
    """URL of a fresh NATS server with JetStream."""
    with _server("NATS", use_docker, _container_nats, _embedded_nats) as url:
        yield url


Start = Callable[[ExitStack], str]
"""Starts a server, registers its shutdown on the exit stack and returns its address."""


@contextmanager
def _server(name: str, use_docker: bool, container: Start, embedded: Start) -> Iterator[str]:
    with ExitStack() as stack:
        yield _start(stack, name, container, embedded) if use_docker else embedded(stack)


def _start(stack: ExitStack, name: str, container: Start, embedded: Start) -> str:
    with _quiet():
        try:
            return container(stack)
        except Exception as failure:  # noqa: BLE001  # whatever is wrong, we have another way
            notes.append(f"{name} ran embedded: its container could not be had ({failure!r})")
        gc.collect()  # close what the client left open while ResourceWarning is ignored
    return embedded(stack)


def _container_postgres(stack: ExitStack) -> str:
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(POSTGRES_IMAGE, driver=None).with_command(_POSTGRES_COMMAND)
    url: str = stack.enter_context(container).get_connection_url(driver=None)
    return url


def _container_nats(stack: ExitStack) -> str:
    from testcontainers.community.nats import NatsContainer

    container = NatsContainer(NATS_IMAGE, jetstream=True)
    url: str = stack.enter_context(container).nats_uri()
    return url


def _embedded_postgres(stack: ExitStack) -> str:
    folder = stack.enter_context(reachable_folder("postgres"))
    place = resolve_layout(folder)
    stack.callback(remove_data, folder)
    options = postgres.PostgresOptions(
        place=place, port=free_port(), log_file=folder.parent / "postgres.log", durable=False
    )
    postgres.initialise(options)
    process = postgres.start(options)
    stack.callback(postgres.stop_server, process)
    stack.enter_context(killed_on_exit(process, folder.parent, place.parent))
    postgres.wait_until_ready(options, process)
    return options.url


def _embedded_nats(stack: ExitStack) -> str:
    folder = stack.enter_context(reachable_folder("nats"))
    options = nats.NatsOptions(
        folder=folder, port=free_port(), log_file=folder.parent / "nats.log", sync_s=300.0
    )
    process = nats.start(options)
    stack.callback(nats.stop_server, process)
    stack.enter_context(killed_on_exit(process, folder.parent))
    nats.wait_until_ready(options, process)
    return options.url


@contextmanager
def reachable_folder(name: str) -> Iterator[Path]:
    """A folder that PostgreSQL's account can enter; under root it cannot enter tmp_path."""
    made = Path(tempfile.mkdtemp(prefix="wallet-test-"))
    made.chmod(0o755)
    try:
        yield made / name
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings of third-party libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
