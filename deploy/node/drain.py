"""Takes this machine out of the cluster, so that no request fails: `python -m deploy.node.drain`.

The unit of deploy/systemd/ runs it before it stops Ray. In this order:

1. `GET /healthz` is 503 from now on, on HAProxy's admin socket: load balancers send new connections
   elsewhere. Everything that still comes is served.
2. Ray is notified that the node drains. Serve starts replicas elsewhere and then stops those on
   this node; every HAProxy of the cluster has forgotten them before they end. Ray places nothing
   here.
3. Once the load balancers had their time and no replica is left, the shards and projections end.
   They are replaced elsewhere at once; until then the next shard on the ring takes their commands.
4. HAProxy finishes the requests that it has, and ends.

Every step has a limit, after which the next one begins. WALLET_DRAIN_S is the time that load
balancers get; see docs/operating/cluster-faults.md.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from deploy.local.haproxy_health import ADMISSION_SERVER
from deploy.local.haproxy_start import HOLDER

_SOCKET_VARIABLE: Final = "RAY_SERVE_HAPROXY_SOCKET_PATH"
_SOCKET_DEFAULT: Final = "/tmp/haproxy-serve/admin.sock"  # noqa: S108 - Serve's own default
_CONFIG_VARIABLE: Final = "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"
_CONFIG_DEFAULT: Final = "/tmp/haproxy-serve/haproxy.cfg"  # noqa: S108 - Serve's own default

BALANCERS_VARIABLE: Final = "WALLET_DRAIN_S"
_BALANCERS_S: Final = 10.0
"""Enough for a load balancer that checks every 5 s and believes the second failure."""
_REPLICAS_S: Final = 40.0
"""For replicas to leave this node, in all."""
_REPLACED_S: Final = 25.0
"""After the load balancers' time, before Ray's deadline. Serve stops a replica that could not be
replaced elsewhere, for lack of room, `graceful_shutdown_timeout_s` (15 s) before it."""
_DRAIN_COMMAND_S: Final = 30.0
_REQUESTS_S: Final = 10.0
"""For the requests that HAProxy still has after that."""
_SOCKET_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.2

_NODE_ID: Final = "--node_id="
_REPLICA: Final = "ray::ServeReplica"
_ACTORS: Final = ("ray::ShardActor", "ray::ProjectionActor")


def main() -> None:
    """Drain; returns when Ray can be stopped."""
    began = monotonic()
    balancers_s = float(os.environ.get(BALANCERS_VARIABLE, _BALANCERS_S))
    say(f"{refuse_health()} HAProxy answers 503 to /healthz")
    if "--head" not in sys.argv:  # Serve's controller runs there: Ray can't drain it
        tell_ray(balancers_s + _REPLACED_S)
        has_left = wait_for(lambda: not processes(_REPLICA), balancers_s + _REPLICAS_S)
        say("the replicas have left" if has_left else "replicas stay")
    sleep(max(0.0, balancers_s - (monotonic() - began)))
    end(processes(*_ACTORS), signal.SIGKILL)
    stop_haproxy()
    say(f"drained in {monotonic() - began:.1f} s")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def refuse_health() -> int:
    """Let `/healthz` be 503; returns for how many HAProxies of this node."""
    place = Path(os.environ.get(_SOCKET_VARIABLE, _SOCKET_DEFAULT))
    refused = 0
    for path in place.parent.glob(f"*/{place.name}"):
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.settimeout(_SOCKET_TIMEOUT_S)
                admin.connect(str(path))
                admin.sendall(f"set server {ADMISSION_SERVER} state maint\n".encode())
                refused += not admin.recv(1024).strip()
        except OSError as failure:
            say(f"{path}: {failure}")
    return refused


def tell_ray(deadline_s: float) -> None:
    """Without the head there is nobody to tell."""
    node = next(filter(None, map(node_id, processes_with(is_raylet))), "")
    if not node:
        say("no Ray node runs here")
        return
    command = [sys.executable, "-m", "deploy.node.ray_drain", node, f"{deadline_s:.0f}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_DRAIN_COMMAND_S)
    except subprocess.CalledProcessError as failure:
        say(f"Ray does not drain this node: {failure.stderr.decode(errors='replace')[-500:]}")
    except subprocess.TimeoutExpired:
        say("Ray does not answer")


def is_raylet(arguments: list[str]) -> bool:
    return arguments[0].endswith("/raylet")


def node_id(pid: int) -> str:
    """Ray's id of the node that a raylet belongs to; empty if it has ended."""
    arguments = next((found for other, found in _arguments() if other == pid), [])
    return next((one.partition("=")[2] for one in arguments if one.startswith(_NODE_ID)), "")


def stop_haproxy() -> None:
    """Soft-stop every HAProxy of this node, and wait until their requests have finished."""
    folder = Path(os.environ.get(_CONFIG_VARIABLE, _CONFIG_DEFAULT)).parent
    for holder in folder.glob(f"*/{HOLDER}"):
        holder.unlink(missing_ok=True)  # so that no standby starts
    found = processes_with(lambda arguments: any(a.startswith(f"{folder}/") for a in arguments))
    end(found, signal.SIGUSR1)
    wait_for(lambda: not any(map(is_alive, found)), _REQUESTS_S)


def processes(*titles: str) -> list[int]:
    """The processes of this machine whose title begins so."""
    return processes_with(lambda arguments: arguments[0].startswith(titles))


def processes_with(is_meant: Callable[[list[str]], bool]) -> list[int]:
    """The processes in this network namespace, except this one, whose arguments are meant."""
    here = os.readlink("/proc/self/ns/net")
    return [
        pid
        for pid, arguments in _arguments()
        if pid != os.getpid() and is_meant(arguments) and _namespace(pid) == here
    ]


def _arguments() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_text(errors="replace").split("\0")
        except OSError:
            continue


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def end(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def is_alive(pid: int) -> bool:
    """False for a zombie, too."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return not stat.rpartition(") ")[2].startswith("Z")


def wait_for(holds: Callable[[], bool], timeout_s: float) -> bool:
    deadline = monotonic() + timeout_s
    while not holds():
        if monotonic() >= deadline:
            return False
        sleep(_POLL_S)
    return True


if __name__ == "__main__":
    main()
