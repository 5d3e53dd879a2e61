"""A Ray cluster of several machines, each a network namespace, and operator commands for it.

Every machine runs a unit of deploy/systemd/ with deploy/ray.env and a node.env of its own.
"""

import secrets
import sys
import sysconfig
from pathlib import Path
from typing import Final

import httpx
import psutil
import yaml

from deploy.local.processes import processes_with_env, wait_until
from tests.cluster.network import Machine, Network
from tests.cluster.units import MEMBER, Supervisor, read_unit
from tests.support.commands import CHECKOUT, run_command

HTTP_PORT: Final = 8089
REDIS_PASSWORD: Final = "of-the-test-s-redis"

_SCRIPTS: Final = Path(sysconfig.get_path("scripts"))
_ENTRY: Final = "import sys; from deploy.cli.main import main; sys.exit(main())"
_STARTED: Final = "Ray runtime started"
_START_TIMEOUT_S: Final = 120
_COMMAND_TIMEOUT_S: Final = 240
_CPUS: Final = 4
"""What each machine declares: Ray does not check. Enough for two generations on two machines."""


class Node:
    """One machine of the cluster and its unit."""

    def __init__(self, machine: Machine, unit: Path, variables: dict[str, str]) -> None:
        self.machine = machine
        self.name = machine.name
        self.http_url = f"http://{machine.address}:{HTTP_PORT}"
        run = machine.folder / "run"
        run.mkdir()
        (machine.folder / "node.env").write_text(
            "".join(
                f"{name}={value}\n"
                for name, value in {
                    **variables,
                    "WALLET_NODE_ADDRESS": machine.address,
                    "RAY_SERVE_HAPROXY_BINARY_PATH": str(run / "haproxy-on-loopback"),
                }.items()
            )
        )
        places = {
            "/opt/wallet/.venv/bin/python": sys.executable,
            "/opt/wallet/.venv/bin": str(_SCRIPTS),
            "/opt/wallet": str(CHECKOUT),
            "/etc/wallet": str(machine.folder),
            "/run/wallet": str(run),
        }
        extra = {"RAY_OVERRIDE_RESOURCES": f'{{"CPU": {_CPUS}}}'}
        self.supervisor = Supervisor(
            read_unit(unit, places), machine, extra, machine.folder / "unit.log"
        )

    def titles(self, title: str) -> list[str]:
        """Titles of its processes with a prefix: ``ray::ShardActor``, ``ray::ServeReplica``, …"""
        return [found for found in map(_title, self._members()) if found.startswith(title)]

    def pids(self, title: str) -> list[int]:
        return [found.pid for found in self._members() if _title(found).startswith(title)]

    def await_start(self, starts: int = 1) -> None:
        """Wait until Ray has started, for the so-manieth time."""

        def started() -> bool:
            assert self.supervisor.failure is None, self.supervisor.failure
            return self.supervisor.output().count(_STARTED) >= starts

        assert wait_until(started, timeout_s=_START_TIMEOUT_S), self.supervisor.output()

    def _members(self) -> list[psutil.Process]:
        return processes_with_env(MEMBER, self.supervisor.environment[MEMBER])


class Cluster:
    """A head node, any number of workers, and operator commands for them."""

    def __init__(
        self, network: Network, folder: Path, database_url: str, nats_url: str, redis_url: str
    ) -> None:
        self.network = network
        self.folder = folder
        self.database_url = database_url
        self.nats_url = nats_url
        """As this process reaches them; the nodes use the same ports of its address."""
        self._token = secrets.token_hex(32)
        self._redis_url = redis_url
        self.nodes: list[Node] = []
        self._revision = 0

    @property
    def token(self) -> str:
        """Of Ray's ports."""
        return self._token

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        return self.nodes[1:]

    @property
    def address(self) -> str:
        """Of the head, for Ray."""
        return f"{self.head.machine.address}:6379"

    @property
    def dashboard_url(self) -> str:
        return f"http://{self.head.machine.address}:8265"

    def start(self, workers: int) -> None:
        """A new machine for each; Ray gives each only 30 s to start, so one by one."""
        self._add("head", "wallet-ray-head.service")
        for number in range(workers):
            self._add(f"worker{number + 1}", "wallet-ray-worker.service")
        # `ray start` does not wait for the part of the head that lists nodes and takes deployments.
        assert wait_until(self._lists_its_nodes, timeout_s=_START_TIMEOUT_S)

    def _lists_its_nodes(self) -> bool:
        """What the page has an operator look at before the first deployment."""
        try:
            return self._get("/api/v0/nodes").is_success
        except httpx.TransportError:
            return False

    def add_worker(self) -> Node:
        return self._add(f"worker{len(self.network.machines)}", "wallet-ray-worker.service")

    def lose(self, node: Node) -> None:
        """Its machine ends at once and never comes back."""
        node.supervisor.lose_power()
        self.nodes.remove(node)

    def stop(self) -> None:
        for node in self.nodes:
            node.supervisor.close()

    def wallet(self, *arguments: str, **settings: str) -> str:
        """Run `wallet …` as an operator on the head would, with these settings."""
        return self._run([sys.executable, "-c", _ENTRY, *arguments], settings)

    def ray(self, *arguments: str) -> str:
        return self._run([str(_SCRIPTS / "ray"), *arguments], {})

    def deploy(self, *, revision: str = "", **arguments: object) -> str:
        """`wallet deploy` of deploy/serve.yaml, with these arguments of the API.

        Returns its output. AssertionError with it if it fails; else everything runs.
        """
        config = yaml.safe_load((CHECKOUT / "deploy" / "serve.yaml").read_text())
        self._revision += 1
        for application in config["applications"]:
            # These tests do not use authentication.
            application["args"] |= {
                "revision": revision or f"test-{self._revision}",
                "auth": "off",
                "allow_unauthenticated_remote": True,
            }
        config["applications"][0]["args"] |= arguments
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        # Not in Ray's environment: as from a machine that is no node.
        return self.wallet(
            "deploy", str(file), "--yes", f"--address={self.dashboard_url}", RAY_ADDRESS="-"
        )

    def status(self) -> str:
        """What `wallet status` prints on 80 columns, whatever its exit code is."""
        try:
            return self.wallet("status", f"--address={self.dashboard_url}", COLUMNS="80")
        except AssertionError as not_ready:
            return str(not_ready)

    def serve_details(self) -> dict[str, object]:
        """What Serve says about itself."""
        found: dict[str, object] = self._get("/api/serve/applications/").raise_for_status().json()
        return found

    def _get(self, path: str) -> httpx.Response:
        """What the head's dashboard answers."""
        authorization = {"Authorization": f"Bearer {self._token}"}
        return httpx.get(f"{self.dashboard_url}{path}", headers=authorization, timeout=10)

    def _run(self, command: list[str], variables: dict[str, str]) -> str:
        return run_command(
            self.head.machine.inside(command),
            env=self.head.supervisor.environment | variables,
            timeout_s=_COMMAND_TIMEOUT_S,
        )

    def _from_nodes(self, url: str) -> str:
        return url.replace("127.0.0.1", self.network.address)

    def _add(self, name: str, unit: str) -> Node:
        machine = self.network.add_machine(name, self.folder / name)
        address = f"{(self.nodes[0].machine if self.nodes else machine).address}:6379"
        variables = {
            "RAY_AUTH_TOKEN": self._token,
            "RAY_ADDRESS": address,
            "WALLET_DATABASE_URL": self._from_nodes(self.database_url),
            "WALLET_NATS_URL": self._from_nodes(self.nats_url),
            "WALLET_LOG_LEVEL": "WARNING",
            "WALLET_DRAIN_S": "4",  # the balancer notices within 1.5 s
        }
        if self._redis_url:  # on every node, as the pages say; only the head uses them
            variables["RAY_REDIS_ADDRESS"] = self._redis_url
            variables["RAY_REDIS_PASSWORD"] = REDIS_PASSWORD
        node = Node(machine, CHECKOUT / "deploy" / "systemd" / unit, variables)
        self.nodes.append(node)
        node.supervisor.enable()
        node.await_start()
        return node


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
