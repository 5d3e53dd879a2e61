"""The service on its own servers for fault injection: Postgres behind a proxy, and NATS.

The service runs with `wallet up` and the addresses of these servers. A watcher stops everything and
removes the data when the run ends, even if it is killed.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import nats as nats_client
import psutil
from nats.js.errors import NotFoundError

from deploy.local import nats, postgres
from deploy.local.ports import free_port
from deploy.local.postgres_layout import remove_data, resolve_layout
from deploy.local.processes import ProcessRecord, kill, process_tree
from deploy.local.state_dir import StateDirectory
from tests.support.postgres_proxy import PostgresProxy, proxy_before
from tests.support.reaper import watched
from tests.support.running_service import RunningService

STREAM: Final = "WALLET_EVENTS"

_CHECKOUT: Final = Path(__file__).parents[2]
_ENTRY: Final = "import sys; from deploy.cli.main import main; sys.exit(main())"
_TIMEOUT_S: Final = 240
_RETRY_S: Final = 0.5


class ChaosStack:
    """The service, its servers, and faults for each. Created by `running_stack`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.state_dir = StateDirectory(folder / "home")
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._folder = folder
        self._postgres = postgres.PostgresOptions(
            place=resolve_layout(folder / "postgres"),
            port=free_port(),
            log_file=folder / "postgres.log",
        )
        self._nats = nats.NatsOptions(
            folder=folder / "nats", port=free_port(), log_file=folder / "nats.log", sync_s=1.0
        )
        self._servers: dict[str, ProcessRecord] = {}
        self.proxy: PostgresProxy
        self._through_proxy = ""

    @property
    def database_url(self) -> str:
        """Postgres directly, not through the proxy."""
        return self._postgres.url

    @property
    def nats_url(self) -> str:
        return self._nats.url

    # -- starting ----------------------------------------------------------------------------------

    def start_servers(self) -> None:
        postgres.initialise(self._postgres)
        self.start_postgres()
        self.start_nats()

    def start_postgres(self) -> None:
        """Returns when it accepts connections."""
        process = postgres.start(self._postgres)
        self._remember("postgres", process)
        postgres.wait_until_ready(self._postgres, process)

    def start_nats(self) -> None:
        process = nats.start(self._nats)
        self._remember("nats", process)
        nats.wait_until_ready(self._nats, process)

    def _remember(self, server: str, process: ProcessRecord) -> None:
        """Also recorded in a file, for the watcher."""
        self._servers[server] = process
        (self._folder / f"{server}.process").write_text(process.model_dump_json())

    async def up(self, proxy: PostgresProxy, through_proxy: str) -> None:
        self.proxy, self._through_proxy = proxy, through_proxy
        await self._wallet("up", {})

    async def deploy(self, **settings: str) -> None:
        """Redeploy the API with other settings while it serves."""
        await self._wallet("deploy api", settings)

    async def _wallet(self, command: str, settings: Mapping[str, str]) -> None:
        environment = wallet_environment(self.state_dir) | {
            "WALLET_HTTP_PORT": str(self._port),
            "WALLET_DATABASE_URL": self._through_proxy,
            "WALLET_NATS_URL": self.nats_url,
            **settings,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _ENTRY,
            *command.split(),
            env=environment,
            cwd=_CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
        assert process.returncode == 0, f"`wallet {command}` failed:\n{said.decode()}"

    # -- faults ------------------------------------------------------------------------------------

    def kill(self, server: str) -> None:
        """kill −9 of every process of the server."""
        kill(process_tree(self._servers[server]))

    def pause(self, server: str) -> None:
        self._signal(server, signal.SIGSTOP)

    def resume(self, server: str) -> None:
        self._signal(server, signal.SIGCONT)

    def _signal(self, server: str, number: signal.Signals) -> None:
        for process in process_tree(self._servers[server]):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def processes(self, title: str) -> list[psutil.Process]:
        """Running processes of the service whose title starts with ``title``."""
        service = RunningService(
            url=self.url,
            database_url=self.database_url,
            nats_url=self.nats_url,
            state_dir=self.state_dir,
        )
        if title == "haproxy":
            return [one for one in service.processes("") if one.name() == "haproxy"]
        return service.processes(title)

    async def terminate_connections(self) -> None:
        """Terminate all other connections. A server that is down has none."""
        try:
            connection = await asyncpg.connect(self.database_url, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()

    async def delete_stream(self) -> None:
        """Delete the stream as soon as NATS responds."""
        while not await self._stream_deleted():  # noqa: ASYNC110  # nothing tells when it is back
            await asyncio.sleep(_RETRY_S)

    async def _stream_deleted(self) -> bool:
        try:
            client = await nats_client.connect(
                self.nats_url, allow_reconnect=False, max_reconnect_attempts=1, connect_timeout=2
            )
        except (OSError, TimeoutError, nats_client.errors.Error):
            return False
        try:
            await client.jetstream(timeout=2).delete_stream(STREAM)
        except NotFoundError:
            return True
        except (OSError, TimeoutError, nats_client.errors.Error):
            return False
        finally:
            await client.close()
        return True


def wallet_environment(state_dir: StateDirectory) -> dict[str, str]:
    """Our environment without settings, so that the service uses its defaults."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("WALLET_")}
    return inherited | {"WALLET_HOME": str(state_dir.root)}


@asynccontextmanager
async def running_stack(port: int | None = None) -> AsyncIterator[ChaosStack]:
    """A stack in a temporary folder, stopped when the context ends."""
    folder = _new_folder()
    stack = ChaosStack(folder, port or free_port())
    with watched("tests.chaos.stack", str(folder), timeout_s=_TIMEOUT_S):
        stack.start_servers()
        async with proxy_before(stack.database_url) as (proxy, url):
            await stack.up(proxy, url)
            yield stack


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wallet-chaos-"))
    folder.chmod(0o755)  # Postgres' own account must get in
    return folder


def _remove_when_the_run_ends(folder: Path) -> None:
    sys.stdin.read()
    state_dir = StateDirectory(folder / "home")
    if state_dir.root.exists():
        _run_wallet(state_dir, "down")
    for file in folder.glob("*.process"):
        kill(process_tree(ProcessRecord.model_validate_json(file.read_bytes())))
    if state_dir.root.exists():
        _run_wallet(state_dir, "clean", "--yes")
    remove_data(folder / "postgres")
    shutil.rmtree(folder, ignore_errors=True)


def _run_wallet(state_dir: StateDirectory, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-c", _ENTRY, *arguments],
        env=wallet_environment(state_dir),
        cwd=_CHECKOUT,
        check=False,
        timeout=_TIMEOUT_S,
        capture_output=True,
    )


if __name__ == "__main__":
    _remove_when_the_run_ends(Path(sys.argv[1]))
