"""A primary and its standby, each on one of two fixed ports, as a DSN with two hosts names them."""

import shutil
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from deploy.local import postgres
from deploy.local.ports import free_port
from deploy.local.postgres_layout import PostgresLayout, resolve_layout
from deploy.local.processes import wait_until
from deploy.local.secret_files import read_or_create_secret
from tests.drills.filesystems import LimitedDisk
from tests.drills.postgres_server import PostgresServer, tool_connection
from tests.support.databases import execute, in_own_loop, with_database

_STREAMING_TIMEOUT_S: Final = 30.0
_ARCHIVED_TIMEOUT_S: Final = 60.0
_NO_ARCHIVE: Final = "/bin/true"
_REPLAYED: Final = """
SELECT replay_lsn >= $1::text::pg_lsn FROM pg_stat_replication WHERE state = 'streaming'
"""
_STANDBY: Final = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"


class Disks(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a server's own disks, in megabytes. None: the machine's disk."""

    data: int | None = None
    wal: int | None = None


class PostgresCluster:
    """``primary`` takes the writes. A server that was replaced stays as it is until it is
    removed for the next standby."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._layout = resolve_layout(folder / "postgres")
        self._ports = [free_port(), free_port()]
        self._names = count(1)
        self.archive = self._layout.parent / "archive"
        self.primary = self._server(self._ports[0])
        self.standby: PostgresServer | None = None
        self.replaced: PostgresServer | None = None
        self.data_disk: LimitedDisk | None = None
        self.wal_disk: LimitedDisk | None = None

    # -- addresses ---------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """DSN of the present primary alone, for the checker."""
        return self.primary.url

    @property
    def url_of_all_hosts(self) -> str:
        """DSN that names both hosts; a client takes the one that accepts writes."""
        first, second = self._ports
        secret = read_or_create_secret(self._layout.password_file)
        return (
            f"postgresql://{postgres.USER}:{secret}@127.0.0.1:{first},127.0.0.1:{second}"
            f"/{postgres.DATABASE}?target_session_attrs=read-write"
        )

    def url_at(self, port: int) -> str:
        """DSN of the same database at another port."""
        secret = read_or_create_secret(self._layout.password_file)
        return f"postgresql://{postgres.USER}:{secret}@127.0.0.1:{port}/{postgres.DATABASE}"

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a primary with an empty database. It can archive its WAL, and does not yet."""
        self.primary.initialise()
        self.primary.configure({"archive_mode": "on", "archive_command": _NO_ARCHIVE})
        self.archive.mkdir()
        self.primary.give(self.archive)
        self.primary.start()

    def add_standby(
        self, *, synchronous: bool, source_port: int | None = None, disks: Disks | None = None
    ) -> PostgresServer:
        """A new standby, which is streaming on return. ``source_port``: of a link to the primary.

        ``synchronous``: every commit waits for it from now on.
        """
        self._remove_replaced()
        disks = disks or Disks()
        server = self._server(self._free_port())
        if disks.data is not None:
            self.data_disk = LimitedDisk(server.place.parent, megabytes=disks.data)
        server.copy_from(self.primary.port, wal=self._wal_folder(server, disks))
        server.follow(source_port or self.primary.port)
        server.start()
        if synchronous:
            self.primary.configure({"synchronous_standby_names": "FIRST 1 (*)"})
        self.wait_for_standby("sync" if synchronous else "async")
        self.standby = server
        return server

    def wait_for_standby(self, state: str) -> None:
        """Wait until the standby is streaming, as ``sync`` or ``async``."""

        def is_streaming() -> bool:
            return bool(ask(self.primary.url, _STANDBY) == state)

        assert wait_until(is_streaming, timeout_s=_STREAMING_TIMEOUT_S), "the standby is not back"

    def wait_until_replayed(self) -> None:
        """Wait until the standby has all that the primary has committed before the call."""
        committed = ask(self.primary.url, "SELECT pg_current_wal_lsn()::text")

        def is_replayed() -> bool:
            return bool(ask(self.primary.url, _REPLAYED, committed))

        assert wait_until(is_replayed, timeout_s=_STREAMING_TIMEOUT_S), "the standby is behind"

    def promote(self) -> None:
        """Make the standby the primary; returns when it accepts writes. The old one stays."""
        assert self.standby is not None
        self.standby.promote()
        self.replace_primary(self.standby)

    def switch_over(self) -> None:
        """A planned switch: a clean shutdown, then the promotion. Nothing is lost."""
        self.primary.stop()
        self.promote()

    def replace_primary(self, server: PostgresServer) -> None:
        """Another server is the primary from now on."""
        self.replaced, self.primary, self.standby = self.primary, server, None

    def stop_waiting_for_standbys(self) -> None:
        """Commits of the primary wait for no standby any more."""
        self.primary.configure({"synchronous_standby_names": ""})

    def remove_standby(self) -> None:
        """Commits no longer wait for it, and it is gone."""
        self.stop_waiting_for_standbys()
        if self.standby is not None:
            self.standby.remove()
            self.standby = None

    # -- backups -----------------------------------------------------------------------------------

    def back_up(self) -> PostgresServer:
        """Begin to archive WAL and take a base backup: a server that was never started."""
        shutil.rmtree(self.archive)
        self.archive.mkdir()
        self.primary.give(self.archive)
        target = f"{self.archive}/%f"
        self.primary.configure(
            {"archive_command": f"test ! -f {target} && cp %p {target}.part && "
             f"mv {target}.part {target}"}
        )  # fmt: skip
        self.remove_standby()
        self._remove_replaced()
        backup = self._server(self._free_port())
        backup.copy_from(self.primary.port)
        return backup

    def archive_all(self) -> None:
        """Return once everything that is committed now is in the archive."""
        segment = ask(self.primary.url, "SELECT pg_walfile_name(pg_switch_wal())")
        archived = self.archive / str(segment)
        assert wait_until(archived.exists, timeout_s=_ARCHIVED_TIMEOUT_S), "WAL is not archived"

    def restore(self, backup: PostgresServer, *, until: datetime) -> None:
        """Stop the primary; the backup, restored to a moment, takes its place at its own port."""
        self.primary.stop()
        backup.configure(
            {
                "restore_command": f"cp {self.archive}/%f %p",
                "recovery_target_time": until.isoformat(),
                "recovery_target_action": "promote",
                "archive_command": _NO_ARCHIVE,
            }
        )
        backup.signal_file("recovery.signal")
        backup.start()
        assert wait_until(
            lambda: ask(backup.url, "SELECT pg_is_in_recovery()") is False,
            timeout_s=_STREAMING_TIMEOUT_S,
        ), "the restored server accepts no writes"
        self.replace_primary(backup)

    def dump(self) -> Path:
        """A dump of the database as it is now."""
        file = self._layout.parent / f"dump-{next(self._names)}"
        file.touch()
        self.primary.give(file)
        self.primary.run_tool(
            "pg_dump",
            *(*tool_connection(self.primary.port), "--format=custom"),
            *(f"--file={file}", postgres.DATABASE),
        )
        return file

    def restore_dump(self, file: Path) -> None:
        """Replace the database by the dump: restored under another name, then renamed.

        So no client sees a database that is not complete.
        """
        server, name = self.url_of_database("postgres"), postgres.DATABASE
        execute(server, f"CREATE DATABASE {name}_restored")
        self.primary.run_tool(
            "pg_restore",
            *(*tool_connection(self.primary.port), f"--dbname={name}_restored", str(file)),
        )
        execute(server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        execute(
            server,
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            f"WHERE datname = '{name}'",
        )
        execute(server, f"ALTER DATABASE {name} RENAME TO {name}_before")
        execute(server, f"ALTER DATABASE {name}_restored RENAME TO {name}")
        execute(server, f"DROP DATABASE {name}_before")

    def url_of_database(self, name: str) -> str:
        """DSN of another database of the primary."""
        return with_database(self.primary.url, name)

    # -- inside ------------------------------------------------------------------------------------

    def _server(self, port: int) -> PostgresServer:
        name = f"server{next(self._names)}"
        place = PostgresLayout(
            folder=self._layout.folder,
            parent=self._layout.parent / name,
            binaries=self._layout.binaries,
            account=self._layout.account,
        )
        return PostgresServer(name, place, port, self._folder)

    def _free_port(self) -> int:
        return next(port for port in self._ports if port != self.primary.port)

    def _remove_replaced(self) -> None:
        if self.replaced is not None:
            self.replaced.remove()
            self.replaced = None

    def _wal_folder(self, server: PostgresServer, disks: Disks) -> Path | None:
        if disks == Disks():
            return None
        folder = self._layout.parent / f"{server.name}-wal"
        if disks.wal is not None:
            self.wal_disk = LimitedDisk(folder, megabytes=disks.wal)
        folder.mkdir(exist_ok=True)
        return folder / "pg_wal"


def ask(url: str, query: str, *values: object) -> Any:
    """One value, or None if the server does not answer."""
    try:
        return in_own_loop(_ask(url, query, *values))
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return None


async def _ask(url: str, query: str, *values: object) -> Any:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(query, *values, timeout=60)
    finally:
        await connection.close(timeout=10)
