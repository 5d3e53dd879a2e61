"""Flame graphs of the running service under load: the busiest shard and the busiest replica.

    make profile                      # of what `make up` started
    make profile ARGS="--seconds 60"

A profile says where processor time goes, not how fast the service is: the profiler, the load and
the service share the machine.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from deploy.local.processes import processes_with_env
from deploy.local.ray_environment import STACK_VARIABLE
from deploy.local.state_dir import StateDirectory

ACTORS = {"shard": "ray::ShardActor", "ingress": "ray::ServeReplica:api:Ingress"}
"""Name of a flame graph → what the titles of its processes begin with."""

_CONNECTIONS = 16
_WARM_UP_S = 3.0
_SAMPLES_PER_S = 200
_END_TIMEOUT_S = 60.0


class Load:
    """Completed debits into one hot wallet, from a few connections, until it is stopped."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._stopping = threading.Event()
        self.answered = 0
        self._headers = {"content-type": "application/json"}
        if key := os.environ.get("WALLET_API_KEY"):
            self._headers["authorization"] = f"Bearer {key}"
        self._wallet = json.loads(self._post(self._connected(), "/v1/wallet", b""))["id"]
        self._threads = [threading.Thread(target=self._run) for _ in range(_CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=30)

    def _post(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
        connection.request("POST", path, body, self._headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 201:
            raise SystemExit(f"{path} returned {answer.status}: {content.decode()}")
        return content

    def _run(self) -> None:
        connection = self._connected()
        path = f"/v1/wallet/{self._wallet}/transfers/debit"
        while not self._stopping.is_set():
            self._post(connection, path, b'{"amount": "1.00", "status": "completed"}')
            self.answered += 1


def busiest(processes: list[psutil.Process], seconds: float) -> psutil.Process:
    """The one that uses the most processor time in the next ``seconds``."""
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(seconds)
    used = [
        sum(process.cpu_times()[:2]) - then for process, then in zip(processes, before, strict=True)
    ]
    return processes[used.index(max(used))]


def record(process: psutil.Process, file: Path, seconds: int) -> subprocess.Popen[str]:
    """A profiler that writes a flame graph of ``process``."""
    profiler = Path(sysconfig.get_path("scripts")) / "py-spy"
    return subprocess.Popen(
        [
            *(str(profiler), "record", "--pid", str(process.pid), "--duration", str(seconds)),
            *("--rate", str(_SAMPLES_PER_S), "--output", str(file), "--format", "flamegraph"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(profiler: subprocess.Popen[str], file: Path, seconds: int) -> None:
    """Wait for a profiler; exit with its error output if it failed."""
    _, errors = profiler.communicate(timeout=seconds + _END_TIMEOUT_S)
    if profiler.returncode != 0 or not file.exists():
        raise SystemExit(
            f"py-spy failed: {errors.strip()}\nIt must be allowed to trace processes: run as "
            "root, or set kernel.yama.ptrace_scope to 0."
        )
    print(file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make profile")
    parser.add_argument("--seconds", type=int, default=20, help="duration (20)")
    seconds = parser.parse_args().seconds
    state_dir = StateDirectory.of_this_checkout()
    stack = state_dir.load()
    ours = processes_with_env(STACK_VARIABLE, stack.id) if "ray" in stack.alive_processes() else []
    found = {
        name: [one for one in ours if " ".join(one.cmdline()).startswith(title)]
        for name, title in ACTORS.items()
    }
    if not all(found.values()):
        sys.exit("The service is not running: start it with `make up`.")
    folder = state_dir.root / "profiles"
    folder.mkdir(exist_ok=True)
    load = Load(stack.http_url)
    try:
        chosen = {name: busiest(processes, _WARM_UP_S) for name, processes in found.items()}
        files = {name: folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.svg" for name in chosen}
        running = {name: record(chosen[name], files[name], seconds) for name in chosen}
        for name, profiler in running.items():
            finish(profiler, files[name], seconds)
    finally:
        load.stop()
    print(f"{load.answered:,} requests were completed meanwhile.")


if __name__ == "__main__":
    main()
