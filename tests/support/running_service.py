"""The running service: started by this test run with `wallet up`, or already running.

With ``WALLET_TEST_URL`` set (and ``WALLET_TEST_DATABASE_URL``, ``WALLET_TEST_NATS_URL``; for a
local stack also ``WALLET_TEST_HOME``) the tests use that service. Otherwise they start a stack
in a temporary folder, once per run. A watcher stops it and removes its data when the run ends, even
if the run is killed.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from deploy.local.ports import free_port
from deploy.local.processes import processes_with_env
from deploy.local.ray_environment import STACK_VARIABLE
from deploy.local.state_dir import StateDirectory
from tests.support.commands import run_command
from tests.support.process_facts import title_of
from tests.support.reaper import watched

_UP_TIMEOUT_S: Final = 240
_DOWN_TIMEOUT_S: Final = 120
_ENTRY: Final = "import sys; from deploy.cli.main import main; sys.exit(main())"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningService:
    """The addresses of the service, its database and its NATS server."""

    url: str
    database_url: str
    nats_url: str
    state_dir: StateDirectory | None = None
    """The state directory of a `wallet up` stack: only then may tests kill its processes."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the stack."""

    def wallet(self, *arguments: str) -> str:
        """Run a `wallet` command for this stack and return its output."""
        state_dir, timeout_s = self._own_state_dir(), _DOWN_TIMEOUT_S
        return _wallet(state_dir, *arguments, timeout_s=timeout_s, settings=self.settings)

    def stop(self) -> None:
        """Stop the stack gracefully; its data is kept."""
        _wallet(self._own_state_dir(), "down", timeout_s=_DOWN_TIMEOUT_S, settings=self.settings)

    def start(self) -> None:
        """Start the stopped stack again and wait until it is ready."""
        _wallet(
            self._own_state_dir(),
            "up",
            port=self._port,
            timeout_s=_UP_TIMEOUT_S,
            settings=self.settings,
        )

    def processes(self, title: str) -> list[psutil.Process]:
        """Running processes of this stack only, whose title starts with ``title``.

        Ray's actors are called ``ray::ShardActor``, ``ray::ServeReplica:api:Ingress``, ….
        """
        stack_id = self._own_state_dir().load().id
        return [
            process
            for process in processes_with_env(STACK_VARIABLE, stack_id)
            if title_of(process).startswith(title)
        ]

    @property
    def _port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _own_state_dir(self) -> StateDirectory:
        assert self.state_dir is not None, "the service is no local stack"
        return self.state_dir


@contextmanager
def running_service() -> Iterator[RunningService]:
    """The service named by the environment, or a new one for this context."""
    url = os.environ.get("WALLET_TEST_URL", "")
    if url:
        state_dir = os.environ.get("WALLET_TEST_HOME", "")
        yield RunningService(
            url=url.rstrip("/"),
            database_url=os.environ.get("WALLET_TEST_DATABASE_URL", ""),
            nats_url=os.environ.get("WALLET_TEST_NATS_URL", ""),
            state_dir=StateDirectory(Path(state_dir)) if state_dir else None,
        )
        return
    with own_service({}) as service:
        yield service


@contextmanager
def own_service(settings: Mapping[str, str]) -> Iterator[RunningService]:
    """A new stack with these environment variables, stopped when the context ends."""
    state_dir = StateDirectory(Path(tempfile.mkdtemp(prefix="wallet-e2e-")) / "home")
    with watched(
        "tests.support.running_service", str(state_dir.root), timeout_s=2 * _DOWN_TIMEOUT_S
    ):
        port = free_port()
        _wallet(state_dir, "up", port=port, timeout_s=_UP_TIMEOUT_S, settings=settings)
        stack = state_dir.load()
        yield RunningService(
            url=f"http://127.0.0.1:{port}",
            database_url=stack.database_url,
            nats_url=stack.nats_url,
            state_dir=state_dir,
            settings=settings,
        )


def _wallet(
    state_dir: StateDirectory,
    *arguments: str,
    timeout_s: float,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> str:
    """Run the `wallet` command for a state directory and return its output."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("WALLET_")}
    inherited |= settings or {}
    inherited["WALLET_HOME"] = str(state_dir.root)
    if port is not None:
        inherited["WALLET_HTTP_PORT"] = str(port)
    command = [sys.executable, "-c", _ENTRY, *arguments]
    return run_command(command, env=inherited, timeout_s=timeout_s)


def _remove_when_the_run_ends(state_dir: StateDirectory) -> None:
    """Wait until standard input closes, then stop the stack and remove its data."""
    import shutil

    sys.stdin.read()
    if state_dir.root.exists():
        _wallet(state_dir, "down", timeout_s=_DOWN_TIMEOUT_S)
        _wallet(state_dir, "clean", "--yes", timeout_s=_DOWN_TIMEOUT_S)
    shutil.rmtree(state_dir.root.parent, ignore_errors=True)


if __name__ == "__main__":
    _remove_when_the_run_ends(StateDirectory(Path(sys.argv[1])))
