"""Asks nodes for their health: from outside, as a balancer does, and on the machine itself.

As a program it asks one URL until it is killed, and prints each change: the monotonic time and the
status of the answer, 0 without one.
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.processes import wait_until
from tests.cluster.nodes import HTTP_PORT, Node
from tests.support.commands import CHECKOUT

_TIMEOUT_S: Final = 0.5
_PERIOD_S: Final = 0.05
_REPLICA: Final = re.compile(r"^\s*server \S*Ingress\S* 127\.0\.0\.1:(\d+) ", re.MULTILINE)

OK: Final = 200
UNREACHABLE: Final = 0

_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def status_of(url: str) -> int:
    """The status of the answer; `UNREACHABLE` without one."""
    try:
        with _direct.open(url, timeout=_TIMEOUT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return UNREACHABLE


def health(node: Node) -> int:
    return status_of(f"{node.http_url}/healthz")


def wait_until_healthy(*nodes: Node, timeout_s: float) -> None:
    for node in nodes:
        assert wait_until(partial(_is_healthy, node), timeout_s=timeout_s), (
            f"{node.name}: /healthz is {health(node) or 'not reachable'}"
        )


def _is_healthy(node: Node) -> bool:
    return health(node) == OK


def replica_port(node: Node) -> int:
    """The port of the ingress replica on this machine: to ask it, and not through HAProxy."""
    files = sorted(node.machine.folder.glob("haproxy-serve/*/haproxy.cfg"), key=_changed_at)
    found = _REPLICA.search(files[-1].read_text(errors="replace"))
    assert found, files
    return int(found[1])


def _changed_at(path: Path) -> float:
    return path.stat().st_mtime


class Watch:
    """The moments at which the answer changed, of the monotonic clock."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, int]] = []

    def first_bad_s(self, after: float) -> float | None:
        """Time from ``after`` to the first answer other than 200; None: never."""
        found = (at - after for at, status in self.changes if at >= after and status != OK)
        return next(found, None)

    def first_s(self, status: int, after: float) -> float | None:
        """Time from ``after`` to the first answer with this status; None: never."""
        found = (at - after for at, seen in self.changes if at >= after and seen == status)
        return next(found, None)


@contextmanager
def watched(
    node: Node, path: str = "/healthz", *, port: int = HTTP_PORT, inside: bool = False
) -> Iterator[Watch]:
    """Ask a node all the time during this context. The watch is complete after it."""
    watch = Watch()
    url = f"http://{node.machine.address}:{port}{path}"
    command = [sys.executable, "-m", __name__, url]
    process = subprocess.Popen(
        node.machine.inside(command) if inside else command,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()  # it has begun
    try:
        yield watch
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # what nsenter started, too
        said, _ = process.communicate()
        for line in (first + said).splitlines():
            at, status = line.split()
            watch.changes.append((float(at), int(status)))


def _ask_for_ever(url: str) -> None:
    before = -1
    while True:
        status = status_of(url)
        if status != before:
            print(time.monotonic(), status, flush=True)
            before = status
        time.sleep(_PERIOD_S)


if __name__ == "__main__":
    _ask_for_ever(sys.argv[1])
