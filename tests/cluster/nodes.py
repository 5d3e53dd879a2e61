"""A Ray cluster of several nodes on this machine, each with its own address, ports and folders.

The nodes have the environment of deploy/ray.env; only what one machine can't have twice differs.
"""

import os
import secrets
import shutil
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import psutil
import yaml

from deploy.local.ports import free_port
from deploy.local.processes import (
    ProcessRecord,
    is_alive,
    kill,
    process_tree,
    processes_with_env,
    spawn,
    wait_until,
)
from tests.support.commands import CHECKOUT, run_command

CPUS: Final = 4
"""The CPUs that each node declares. Ray does not check."""

_SCRIPTS: Final = Path(sysconfig.get_path("scripts"))
_ENTRY: Final = "import sys; from deploy.cli.main import main; sys.exit(main())"
_STARTED: Final = "Ray runtime started"
_START_TIMEOUT_S: Final = 120
_COMMAND_TIMEOUT_S: Final = 240
_POLL_S: Final = 0.5
_NODE_VARIABLE: Final = "WALLET_TEST_NODE"


def ray_variables() -> dict[str, str]:
    """The variables of deploy/ray.env."""
    lines = (CHECKOUT / "deploy" / "ray.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Node:
    """One node: `ray start --block` and its child processes."""

    def __init__(self, name: str, process: ProcessRecord, http_port: int) -> None:
        self.name = name
        self.http_url = f"http://127.0.0.1:{http_port}"
        self._process = process

    def titles(self, title: str) -> list[str]:
        """Titles of its processes with a prefix: ``ray::ShardActor``, ``ray::ServeReplica``, …"""
        return [found for found in map(_title, self._members()) if found.startswith(title)]

    def pids(self, title: str) -> list[int]:
        return [found.pid for found in self._members() if _title(found).startswith(title)]

    def is_alive(self) -> bool:
        return is_alive(self._process)

    def kill(self) -> None:
        """Kill all its processes at once, like a power failure."""
        kill([*process_tree(self._process), *self._members()])

    def _members(self) -> list[psutil.Process]:
        return processes_with_env(_NODE_VARIABLE, self.name)


class Cluster:
    """A head node, any number of workers, and operator commands for them."""

    def __init__(self, database_url: str, nats_url: str) -> None:
        # Short: Unix sockets lie below it.
        self._folder = Path(tempfile.mkdtemp(prefix="wc-", dir="/tmp"))
        self._token = secrets.token_hex(32)
        self._port = free_port()
        self._dashboard_port = free_port()
        self._dashboard_url = f"http://127.0.0.1:{self._dashboard_port}"
        self.http_port = free_port()
        self.database_url = database_url
        self.nats_url = nats_url
        self._settings = {
            "WALLET_DATABASE_URL": database_url,
            "WALLET_NATS_URL": nats_url,
            "WALLET_HTTP_HOST": "0.0.0.0",
            "WALLET_ALLOW_UNAUTHENTICATED_REMOTE": "true",
            "WALLET_HTTP_PORT": str(self.http_port),
            "WALLET_LOG_LEVEL": "WARNING",
            "WALLET_HOME": str(self._folder / "home"),
        }
        self.nodes: list[Node] = []
        self._started = 0

    @property
    def address(self) -> str:
        return f"{_ip(0)}:{self._port}"

    @property
    def dashboard_url(self) -> str:
        return self._dashboard_url

    @property
    def token(self) -> str:
        """Of Ray's ports."""
        return self._token

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def http_url(self) -> str:
        """The address of the service for clients: the head's HAProxy."""
        return self.head.http_url

    def start_head(self, *, cpus: int = CPUS) -> None:
        """Start the head, or restart it with the same address after it was lost."""
        # On this machine Ray would take the workers' processes for an already running cluster.
        (self._folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        head = [
            "--head",
            f"--num-cpus={cpus}",
            f"--port={self._port}",
            f"--temp-dir={self._folder / 'ray'}",
            "--include-dashboard=true",
            f"--dashboard-port={self._dashboard_port}",
            "--no-monitor",
        ]
        node = self._start(head, self.http_port, _ip(0))
        self.nodes.insert(0, node)
        self._await_start(node)

    def start_workers(self, count: int) -> None:
        for _ in range(count):  # one by one: Ray gives each only 30 s to start
            worker = [f"--address={self.address}", f"--num-cpus={CPUS}"]
            node = self._start(worker, free_port(), _ip(self._started))
            self.nodes.append(node)
            self._await_start(node)

    def lose(self, node: Node) -> None:
        node.kill()
        self.nodes.remove(node)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()  # nothing must be kept
        shutil.rmtree(self._folder, ignore_errors=True)

    def wallet(self, *arguments: str, **settings: str) -> str:
        """Run `wallet …` as an operator of the cluster would, with these settings."""
        return self._run([sys.executable, "-c", _ENTRY, *arguments], settings)

    def serve_deploy(self, *, revision: str) -> None:
        """`serve deploy deploy/serve.yaml`, at this cluster's port; returns when it all runs."""
        config = yaml.safe_load((CHECKOUT / "deploy" / "serve.yaml").read_text())
        # All interfaces, as deployed: a replica listens there, too, and the HAProxy of another
        # node must reach it.
        config["http_options"]["port"] = self.http_port
        for application in config["applications"]:
            # These tests do not use authentication.
            application["args"] |= {
                "revision": revision,
                "auth": "off",
                "allow_unauthenticated_remote": True,
            }
        file = self._folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        began = time.time()
        self._run(
            [str(_SCRIPTS / "serve"), "deploy", str(file)],
            {"RAY_DASHBOARD_ADDRESS": self._dashboard_url},
        )
        assert wait_until(lambda: self._runs_since(began), timeout_s=_COMMAND_TIMEOUT_S)

    def _runs_since(self, began: float) -> bool:
        """Whether Serve runs the version that was deployed since then."""
        answer = httpx.get(
            f"{self._dashboard_url}/api/serve/applications/",
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=10,
        )
        answer.raise_for_status()
        found = answer.json()["applications"].values()
        failed = [one["message"] for one in found if one["status"] == "DEPLOY_FAILED"]
        assert not failed, failed
        time.sleep(_POLL_S)
        return all(
            one["status"] == "RUNNING" and one["last_deployed_time_s"] > began for one in found
        )

    def _run(self, command: list[str], variables: dict[str, str]) -> str:
        environment = self._environment("operator") | variables
        return run_command(command, env=environment, timeout_s=_COMMAND_TIMEOUT_S)

    def _start(self, arguments: list[str], http_port: int, ip: str) -> Node:
        name = f"{self._folder.name}-{self._started}"
        process = spawn(
            name,
            [
                str(_SCRIPTS / "ray"),
                "start",
                "--block",
                *arguments,
                f"--node-ip-address={ip}",
                f"--dashboard-agent-listen-port={free_port()}",
                f"--metrics-export-port={free_port()}",
                "--min-worker-port=0",
                "--max-worker-port=0",
                "--object-store-memory=100000000",
                "--include-log-monitor=false",
            ],
            log_file=self._folder / f"{name}.log",
            environment=self._environment(name)
            | {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(http_port)},
            directory=CHECKOUT,
        )
        self._started += 1
        return Node(name, process, http_port)

    def _await_start(self, node: Node) -> None:
        log = self._folder / f"{node.name}.log"

        def started() -> bool:
            return _STARTED in log.read_text() or not node.is_alive()

        assert wait_until(started, timeout_s=_START_TIMEOUT_S), log.read_text()
        assert node.is_alive(), log.read_text()

    def _environment(self, name: str) -> dict[str, str]:
        inherited = {
            variable: text
            for variable, text in os.environ.items()
            if not variable.startswith(("WALLET_", "RAY_"))
        }
        folder = self._folder / name
        return {
            **inherited,
            **ray_variables(),
            **self._settings,
            _NODE_VARIABLE: name,
            "RAY_AUTH_TOKEN": self._token,
            "RAY_ADDRESS": self.address,
            # Several nodes on the processors of one may take longer than Ray's 30 s to start.
            "RAY_raylet_start_wait_time_s": str(_START_TIMEOUT_S),
            # What two nodes can't share on one machine.
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "log.sock"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        }


def _ip(number: int) -> str:
    """A loopback address per node. Not 127.0.0.1, because Ray translates it."""
    return f"127.0.0.{number + 2}"


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
