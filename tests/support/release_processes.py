"""Processes of a release, without Ray: shards with an ingress replica, and a projection.

Ray leads a replica to the shards of its own release (`actors.rpc.messages`), so a release's ingress
and its shards are one unit. The programs below run on the sources of any release that they are for.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from actors.rpc.server import RpcEndpoint
from deploy.local.ports import free_port

_ROOT: Final = Path(__file__).parents[2]
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0
_READY: Final = "READY"
_SHOWN: Final = 40
"""Lines of a process's log, should it have ended by itself."""

RELEASE_0_1: Final = """
from actors.dispatcher import Dispatcher, DispatcherLimits
from actors.failover import FailoverShards as Transport
from actors.keepalive import Heartbeat
from actors.shard_channel import open_channel as connect
from actors.shard_listener import Address as Endpoint
from actors.shard_process import ShardProcess, limits_from
from serve_app.services import Services as Dependencies
from wallet.settings import Settings
"""

CURRENT: Final = """
from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.rpc.client import connect
from actors.rpc.failover import FailoverTransport as Transport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.server import RpcEndpoint as Endpoint
from actors.shard.process import ShardProcess, limits_from
from runtime.settings import Settings
from serve_app.dependencies import Dependencies
"""

_API: Final = """
import asyncio, sys
import asyncpg, msgspec, uvicorn
from projections.queries import PLANNER_SETTINGS, Queries
from serve_app.app import create_application

async def main():
    settings = Settings()
    shards = [ShardProcess(number, settings) for number in range(settings.shard_count)]
    endpoints = [await shard.listen("127.0.0.1") for shard in shards]
    heartbeat = limits_from(Heartbeat, settings)
    transport = Transport(
        lambda shard: connect(endpoints[shard], heartbeat), shard_count=len(shards)
    )
    pool = await asyncpg.create_pool(
        settings.database_url, min_size=0, max_size=4, server_settings=PLANNER_SETTINGS
    )
    application = create_application(
        Dependencies(
            settings=settings,
            dispatcher=Dispatcher(transport, limits_from(DispatcherLimits, settings)),
            queries=Queries(pool, timeout_s=settings.database_timeout_s),
            probes={},
        )
    )
    server = uvicorn.Server(
        uvicorn.Config(application, port=int(sys.argv[1]), log_level="error", lifespan="off")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print("READY", msgspec.json.encode(endpoints).decode(), flush=True)
    await serving

asyncio.run(main())
"""

_PROJECTION: Final = """
import asyncio
from projections.projection_process import ProjectionProcess

async def main():
    projection = ProjectionProcess(0, Settings())
    print("READY", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


_CONNECT: Final = """
import asyncio, sys
import msgspec

async def main():
    endpoint = msgspec.json.decode(sys.argv[1], type=Endpoint)
    try:
        await connect(endpoint, limits_from(Heartbeat, Settings()))
    except Exception as error:
        print(error)

asyncio.run(main())
"""


class Release:
    """A release's programs. ``layout``: names of its modules.

    ``sources``: None: this working tree.
    """

    def __init__(self, sources: Path | None = None, *, layout: str = CURRENT) -> None:
        self._sources = sources or _ROOT
        self._imports = layout

    @asynccontextmanager
    async def running(self, settings: dict[str, str]) -> AsyncIterator["RunningRelease"]:
        """Start shards, an ingress replica and a projection with the environment ``settings``."""
        port = free_port()
        environment = self._environment(settings)
        async with (
            self._process(environment, self._imports + _API, str(port)) as api,
            self._process(environment, self._imports + _PROJECTION) as projection,
        ):
            yield RunningRelease(f"http://127.0.0.1:{port}", api, projection)

    async def migrate(self, database: str) -> None:
        """Migrate with the release's own code."""
        code = "import sys; from migrations.migrate import upgrade; upgrade(sys.argv[1])"
        process = await self._start(self._environment({}), code, database)
        await process.communicate()
        assert process.returncode == 0, "the migration failed"

    @asynccontextmanager
    async def _process(
        self, environment: dict[str, str], code: str, *arguments: str
    ) -> AsyncIterator["_Process"]:
        """A process that has started."""
        process = await self._start(environment, code, *arguments)
        assert process.stdout is not None
        try:
            running = _Process(process)
            reading = asyncio.create_task(running.read())
            await asyncio.wait_for(running.started.wait(), _START_TIMEOUT_S)
            yield running
            if process.returncode is None:
                process.kill()
            await reading
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def unreachable_reason(self, shard: RpcEndpoint) -> str:
        """Why the release's ingress doesn't reach ``shard``; empty: it does."""
        encoded = msgspec.json.encode(shard).decode()
        process = await self._start(self._environment({}), self._imports + _CONNECT, encoded)
        said, _ = await process.communicate()
        return said.decode().strip()

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "WALLET_" not in name}
        return {**kept, "PYTHONPATH": str(self._sources), **settings}

    async def _start(
        self, environment: dict[str, str], code: str, *arguments: str
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            # -P: not the working directory's modules, but those of PYTHONPATH.
            *(sys.executable, "-P", "-c", code, *arguments),
            cwd=self._sources,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )


class _Process:
    """A process, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.started = asyncio.Event()
        self.says = ""
        """What came with its readiness."""
        self.log: list[str] = []

    async def read(self) -> None:
        """Until the process ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode().rstrip()
            if text.startswith(_READY):
                self.says = text.removeprefix(_READY)
                self.started.set()
            else:
                self.log.append(text)


class RunningRelease:
    """Processes of a release."""

    def __init__(self, url: str, api: _Process, projection: _Process) -> None:
        self.url = url
        self.shards = msgspec.json.decode(api.says, type=list[RpcEndpoint])
        self._api = api
        self._projection = projection

    @property
    def log(self) -> list[str]:
        """What its processes have logged."""
        return self._api.log + self._projection.log

    def assert_running(self) -> None:
        for name, one in (("api", self._api), ("projection", self._projection)):
            code = one.process.returncode
            assert code is None, f"the {name} ended by itself ({code}): {one.log[-_SHOWN:]}"

    async def stop(self) -> None:
        """End them as a deployment does: the ingress answers what it has, the rest is killed."""
        self.assert_running()
        self._api.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self._api.process.wait(), _STOP_TIMEOUT_S)
        self._projection.process.kill()
        await self._projection.process.wait()
