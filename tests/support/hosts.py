"""Postgres hosts that misbehave: stopped processes, sockets that never answer."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import asyncpg
import psutil

from runtime.postgres.dsn import Host, PostgresDsn
from tests.support.databases import in_own_loop

Server = tuple[str, int]


@contextmanager
def unanswering_host() -> Iterator[Server]:
    """A port that accepts connections and never answers, as a hung host does."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()


@contextmanager
def refusing_host() -> Iterator[Server]:
    """A port that nobody listens on and nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """All processes of the embedded server of ``url`` are stopped (SIGSTOP)."""
    postmaster = in_own_loop(_postmaster(url))
    with ExitStack() as resuming:
        for process in (postmaster, *postmaster.children(recursive=True)):
            process.send_signal(signal.SIGSTOP)
            resuming.callback(_resume, process)
        yield


def address_of(url: str) -> Server:
    host = PostgresDsn.parse(url).hosts[0]
    return host.name, host.port or 5432


def dsn_of(*servers: Server, of: str, options: str = "") -> str:
    """The DSN of ``of`` with these hosts instead of its own."""
    _, _, rest = of.partition("://")
    account, _, path = rest.rpartition("@")
    hosts = ",".join(str(Host(*server)) for server in servers)
    return f"postgresql://{account}@{hosts}/{path.partition('/')[2]}{options}"


async def _postmaster(url: str) -> psutil.Process:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        postmaster = psutil.Process(connection.get_server_pid()).parent()
        assert postmaster is not None
        return postmaster
    finally:
        connection.terminate()


def _resume(process: psutil.Process) -> None:
    if process.is_running():
        process.send_signal(signal.SIGCONT)
