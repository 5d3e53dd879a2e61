"""One Postgres server of a cluster, and what an operator or a failing machine does to it."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from deploy.local import postgres
from deploy.local.postgres_layout import PostgresLayout
from deploy.local.processes import ProcessRecord, is_alive, kill, process_tree
from deploy.local.secret_files import read_or_create_secret

_SETTINGS_FILE: Final = "postgresql.auto.conf"
_TOOL_TIMEOUT_S: Final = 120
_PROMOTE_TIMEOUT_S: Final = 60.0

_BASE_SETTINGS: Final = {
    # A killed server leaves its shared memory behind unless that is in its data directory.
    "dynamic_shared_memory_type": "mmap",
    "max_wal_senders": "8",
    "hot_standby": "on",
    # As short as a cluster manager would set it: a standby connects again at once.
    "wal_retrieve_retry_interval": "200ms",
}


class PostgresServer:
    """A server with a data directory and a port of its own. Durable, as `wallet up` runs it."""

    def __init__(self, name: str, place: PostgresLayout, port: int, logs: Path) -> None:
        self.name = name
        self.port = port
        self._logs = logs
        self._options = postgres.PostgresOptions(
            place=place, port=port, log_file=logs / f"postgres-{name}.log"
        )
        self._process: ProcessRecord | None = None

    @property
    def url(self) -> str:
        """DSN of this server alone."""
        return self._options.url

    @property
    def data(self) -> Path:
        return self._options.place.data

    @property
    def place(self) -> PostgresLayout:
        return self._options.place

    # -- life --------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """A new, empty database."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        postgres.initialise(self._options)
        self.configure(_BASE_SETTINGS)

    def copy_from(self, source_port: int, *, wal: Path | None = None) -> None:
        """A copy of a running server (pg_basebackup), which streams from it once it is started.

        ``wal``: an empty folder for the WAL; None: inside of the data directory.
        """
        self._make_private_folder(self.data)
        if wal is not None:
            self._make_private_folder(wal)
        where = [f"--waldir={wal}"] if wal else []
        source = f"host=127.0.0.1 port={source_port} user={postgres.USER}"
        self.run_tool(
            "pg_basebackup",
            *("--pgdata", str(self.data), "--dbname", source, "--checkpoint=fast"),
            *("--wal-method=stream", *where),
        )

    def start(self) -> None:
        """Start; returns when it accepts connections."""
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> None:
        """Start, without waiting for it."""
        self._process = postgres.start(self._options)
        # For the watcher, which stops it even if the run is killed.
        (self._logs / f"postgres-{self.name}.process").write_text(self._process.model_dump_json())

    def wait_until_ready(self) -> None:
        assert self._process is not None
        postgres.wait_until_ready(self._options, self._process)

    def stop(self) -> None:
        """A clean shutdown: with a checkpoint, and after the standbys have everything."""
        if self._process is not None:
            postgres.stop_server(self._process)

    def kill(self) -> None:
        """kill −9 of every process, as when the machine loses power."""
        if self._process is not None:
            kill(process_tree(self._process))

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill it and remove its data."""
        self.resume()
        self.kill()
        shutil.rmtree(self.place.parent, ignore_errors=True)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and is_alive(self._process)

    def log(self) -> str:
        return self._options.log_file.read_text(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        for process in process_tree(self._process):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    # -- settings ----------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append settings; a running server reloads them. Later values replace earlier ones.

        In a file, not by SQL: it works on a server whose commits wait.
        """
        path = self.data / _SETTINGS_FILE
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{text}'\n" for name, text in settings.items())
        if self._process is not None and self.is_alive:
            os.kill(self._process.pid, signal.SIGHUP)

    def follow(self, source_port: int) -> None:
        """Make a stopped copy a standby of the server behind a port."""
        secret = read_or_create_secret(self.place.password_file)
        self.configure(
            {
                "primary_conninfo": f"host=127.0.0.1 port={source_port} user={postgres.USER} "
                f"password={secret} application_name={self.name}",
                "synchronous_standby_names": "",
            }
        )
        self.signal_file("standby.signal")

    def signal_file(self, name: str) -> None:
        """Create ``standby.signal`` or ``recovery.signal``."""
        path = self.data / name
        path.touch(mode=0o600)
        self.give(path)

    def promote(self) -> None:
        """Make a standby the primary; returns when it accepts writes."""
        self.run_tool(
            "pg_ctl",
            *("promote", "--pgdata", str(self.data), "--wait"),
            f"--timeout={_PROMOTE_TIMEOUT_S:.0f}",
        )

    # -- tools -------------------------------------------------------------------------------------

    def run_tool(self, name: str, *arguments: str) -> None:
        """Run a program of Postgres as the server's account; AssertionError with what it said."""
        account = self.place.account
        identity = account.popen_arguments() if account else {}
        done = subprocess.run(
            [str(self.place.binaries / name), *arguments],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LC_ALL": "C",
                "PGPASSWORD": read_or_create_secret(self.place.password_file),
                "PGCONNECT_TIMEOUT": "10",
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=_TOOL_TIMEOUT_S,
            check=False,
            **identity,
        )
        assert done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"

    def _make_private_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True)
        self.give(folder)

    def give(self, path: Path) -> None:
        """Make the server's account the owner."""
        if self.place.account is not None:
            os.chown(path, self.place.account.uid, self.place.account.gid)


def tool_connection(port: int) -> Sequence[str]:
    """The arguments of psql, pg_dump and pg_restore for a server of this machine."""
    return ("--host=127.0.0.1", f"--port={port}", f"--username={postgres.USER}")
