"""The service that is measured: a running one, or a stack of its own for the run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.local.ports import free_port
from deploy.local.processes import process_tree, processes_with_env
from deploy.local.ray_environment import STACK_VARIABLE
from deploy.local.state_dir import StateDirectory

_UP_TIMEOUT_S: Final = 240
_DOWN_TIMEOUT_S: Final = 120
_REQUEST_TIMEOUT_S: Final = 10

# Never through a proxy that the environment names: what is measured is on this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServiceMissing(Exception):
    """There is nothing to measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Addresses of the service. ``home``: its state directory, if it is a local stack."""

    http_url: str
    database_url: str
    nats_url: str
    stream: str = "WALLET_EVENTS"
    home: StateDirectory | None = None
    pids: tuple[int, ...] = ()
    """Root processes of the service, if there is no state directory."""
    headers: tuple[str, ...] = ()

    def processes(self) -> list[psutil.Process]:
        """Every living process of the service, servers included."""
        found = {process.pid: process for process in self._found()}
        return list(found.values())

    def _found(self) -> Iterator[psutil.Process]:
        if self.home is not None:
            stack = self.home.load()
            yield from processes_with_env(STACK_VARIABLE, stack.id)
            for recorded in stack.processes.values():
                yield from process_tree(recorded)
        for pid in self.pids:
            root = psutil.Process(pid)
            yield root
            yield from root.children(recursive=True)

    def shard_count(self) -> int:
        """Number of shards, from /readyz."""
        detail = self.get("/readyz")["components"]["shards"]["detail"]
        found = re.search(r"\d+ of (\d+)", detail)
        if found is None:
            raise ServiceMissing(f"/readyz does not report the number of shards: {detail!r}")
        return int(found[1])

    def has_route(self, path: str) -> bool:
        """Whether the service's OpenAPI document has this path."""
        return path in self.get("/openapi.json")["paths"]

    def get(self, path: str) -> dict[str, dict[str, dict[str, str]]]:
        """The JSON of a GET."""
        request = urllib.request.Request(self.http_url + path)
        for header in self.headers:
            name, _, value = header.partition(":")
            request.add_header(name, value.strip())
        try:
            with _direct.open(request, timeout=_REQUEST_TIMEOUT_S) as answer:
                found: dict[str, dict[str, dict[str, str]]] = json.load(answer)
        except OSError as failure:
            raise ServiceMissing(f"{self.http_url}{path} does not respond: {failure}") from failure
        return found


def running_service() -> Service | None:
    """What `make up` started in this checkout, if it runs."""
    return service_of(StateDirectory.of_this_checkout())


def service_of(home: StateDirectory) -> Service | None:
    """The service of ``home``, if it runs."""
    stack = home.load()
    if not stack.is_complete or not stack.alive_processes():
        return None
    return Service(
        http_url=stack.http_url.replace("localhost", "127.0.0.1"),
        database_url=stack.database_url,
        nats_url=stack.nats_url,
        stream=os.environ.get("WALLET_STREAM_NAME", "WALLET_EVENTS"),
        home=home,
    )


@contextmanager
def own_stack(settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A stack of its own, in a temporary folder; removed afterwards with all its data.

    ``settings``: environment variables (``WALLET_…``) that it is started with.
    """
    folder = Path(tempfile.mkdtemp(prefix="wallet-bench-"))
    folder.chmod(0o755)  # PostgreSQL's account must be able to enter
    home = StateDirectory(folder / "home")
    environment = os.environ | {
        "WALLET_HTTP_PORT": str(free_port()),
        **(settings or {}),
        "WALLET_HOME": str(home.root),
    }
    try:
        _wallet("up", environment, _UP_TIMEOUT_S)
        service = service_of(home)
        if service is None:
            raise ServiceMissing("`wallet up` succeeded, but the service is not running")
        yield service
    finally:
        _wallet("down", environment, _DOWN_TIMEOUT_S)
        _wallet("clean --yes", environment, _DOWN_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wallet(command: str, environment: Mapping[str, str], timeout_s: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from deploy.cli.main import main; main()", *command.split()],
        env=dict(environment),
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceMissing(f"`wallet {command}` failed: {(done.stdout + done.stderr)[-800:]}")
