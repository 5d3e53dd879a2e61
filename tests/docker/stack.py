"""The containers of docker-compose.yml as a separate project: own port, secrets and volumes."""

import json
import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from deploy.local.ports import free_port
from tests.support.commands import CHECKOUT

_FILES: Final = (CHECKOUT / "docker-compose.yml", Path(__file__).parent / "published.yml")
_COMMAND_TIMEOUT_S: Final = 600
"""Building the image takes most of it, the first time."""


def why_not() -> str | None:
    """Why containers are unavailable here; None if they are available."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as failure:
            return f"`{' '.join(command)}` does not run: {failure}"
        if done.returncode != 0:
            reported = done.stderr.decode(errors="replace").strip().splitlines()
            return f"`{' '.join(command)}`: {reported[-1] if reported else 'failed'}"
    return None


class Containers:
    """A compose project that lives as long as this context, and its volumes with it."""

    def __init__(self) -> None:
        self._project = f"wallet-test-{secrets.token_hex(4)}"
        self._folder = tempfile.TemporaryDirectory(prefix="wallet-docker-")
        self._secrets = {
            name: f"s{secrets.token_hex(16)}"
            for name in (
                "RAY_AUTH_TOKEN",
                "POSTGRES_PASSWORD",
                "NATS_TOKEN",
                "NATS_READER_PASSWORD",
                "GRAFANA_PASSWORD",
            )
        }
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "Containers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.compose("down", "--volumes", "--timeout", "60")
        self._folder.cleanup()

    @property
    def database_url(self) -> str:
        """Looked up each time: the port changes after `down` and `up`."""
        password = self._secrets["POSTGRES_PASSWORD"]
        return f"postgresql://wallet:{password}@{self._published('postgres', 5432)}/wallet"

    @property
    def nats_url(self) -> str:
        return f"nats://wallet:{self._secrets['NATS_TOKEN']}@{self._published('nats', 4222)}"

    def up(self, *arguments: str) -> None:
        """Start stopped containers, and wait until all are healthy."""
        self.compose("up", "--detach", "--wait", *arguments)

    def compose(self, *arguments: str) -> str:
        """Run `docker compose …` for this project; returns its output."""
        files = [part for file in _FILES for part in ("--file", str(file))]
        command = ["docker", "compose", "--project-name", self._project, *files, *arguments]
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}\n{self._logs()}"
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def processes(self, container: str, title: str) -> int:
        """The number of processes of a container whose title has this prefix."""
        reported = subprocess.run(
            ["docker", "top", container, "-eo", "pid,args"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return sum(
            line.split(maxsplit=1)[1].startswith(title) for line in reported.stdout.splitlines()[1:]
        )

    def inspect(self, container: str) -> Any:
        """The `docker inspect` document of a container."""
        reported = subprocess.run(
            ["docker", "inspect", container], capture_output=True, timeout=30, check=True
        )
        return json.loads(reported.stdout)[0]

    def _published(self, service: str, port: int) -> str:
        return self.compose("port", service, str(port)).strip()

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: text for name, text in os.environ.items() if not name.startswith("WALLET_")
        }
        return {**inherited, **self._secrets, "WALLET_HTTP_PORT": str(self._port)}

    def _logs(self) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self._project, "logs", "--tail", "40"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout[-20_000:]
