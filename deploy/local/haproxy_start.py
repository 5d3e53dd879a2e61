"""Starts HAProxy for Ray Serve with an edited configuration, and a watcher that restarts it.

Serve starts this program instead of HAProxy (`haproxy_wrapper.py`). It edits the configuration
(`haproxy_configuration.py`) and then execs HAProxy. The process id stays the same, which Serve
checks.

The standby. Serve detects a dead HAProxy after three failed checks and then starts another: 9 s
during which no port listens. So a watcher process beside each HAProxy waits for its end, and starts
a standby with the same routes at once. The standby has no admin socket, so Serve's checks still
fail. Serve starts its own HAProxy, which takes over the port as soon as it has its routes. Until
then the routes don't change; health checks find replicas that ended.

The end of the node. When Ray gives a node up, its raylet ends, and with it Serve's processes; but
not HAProxy, which would go on answering for a node that is no part of the cluster any more. So the
watcher waits for the raylet, too, and soft-stops whatever listens: new connections are refused, and
requests in flight finish.

A file beside the configuration holds the pid of the HAProxy that listens. A HAProxy that ends and
is not named there was replaced, or was stopped on purpose (`haproxy_drain.py` removes the file
first): no standby starts.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from deploy.local.haproxy_configuration import ClientTimeouts, UnknownConfiguration, prepared
from deploy.local.haproxy_health import write_pages

HOLDER: Final = "front-port.pid"
"""The file with the pid of the process that listens on the service's port."""

_STANDBY_CONFIGURATION: Final = "standby.conf"

_RESTART_PAUSE_S: Final = 0.5
"""Pause before a standby that ended is replaced."""

_ABANDONED_S: Final = 60.0
"""A standby stops after this time without Serve's proxy process and without a successor: the node
is being stopped. A successor takes about 10 s."""

_POLL_S: Final = 1.0


def main(binary: str, arguments: list[str]) -> None:
    """Edit the configuration, start the watcher, and exec HAProxy.

    Raises:
        UnknownConfiguration: the configuration differs from Ray 2.60's; nothing was started.
    """
    configuration = Path(arguments[arguments.index("-f") + 1])
    folder = configuration.parent
    write_pages(folder)
    edited = prepared(configuration.read_text(encoding="utf-8"), timeouts_of(os.environ), folder)
    configuration.write_text(edited.text, encoding="utf-8")
    if edited.standby is not None:
        (folder / _STANDBY_CONFIGURATION).write_text(edited.standby, encoding="utf-8")
        arguments = _taking_over(arguments, _holder(folder))
        _hold(folder, os.getpid())
        _start_watcher(binary, folder)
    os.execv(binary, [binary, *arguments])  # noqa: S606 - the program that Serve expects


def timeouts_of(environment: "os._Environ[str] | dict[str, str]") -> ClientTimeouts:
    """Read the time-outs from the environment (see `ray_environment.py`)."""
    return ClientTimeouts(
        header_s=int(environment.get("WALLET_HAPROXY_TIMEOUT_HTTP_REQUEST_S", "10")),
        idle_s=int(environment.get("WALLET_HAPROXY_TIMEOUT_HTTP_KEEP_ALIVE_S", "60")),
    )


def _holder(folder: Path) -> int | None:
    """The process that listens on the service's port, if it is a running HAProxy of this folder."""
    pid = named(folder)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return pid if str(folder).encode() in command else None


def _hold(folder: Path, pid: int) -> None:
    scratch = folder / f"{HOLDER}.{pid}"
    scratch.write_text(str(pid), encoding="ascii")
    scratch.replace(folder / HOLDER)


def _taking_over(arguments: list[str], holder: int | None) -> list[str]:
    """``arguments`` with the holder among the processes to soft-stop (``-sf``)."""
    if holder is None or str(holder) in arguments:
        return arguments
    if "-sf" in arguments:
        place = arguments.index("-sf") + 1
        return [*arguments[:place], str(holder), *arguments[place:]]
    return [*arguments, "-sf", str(holder)]


def _start_watcher(binary: str, folder: Path) -> None:
    if sys.platform != "linux":
        return
    pid, ends = os.getpid(), os.pidfd_open(os.getpid())
    manager_ends, raylet = os.pidfd_open(os.getppid()), raylet_of(os.getppid())
    node_ends = None if raylet is None else os.pidfd_open(raylet)
    if os.fork() == 0:
        try:
            os.setsid()
            Watcher(binary, folder, manager_ends, node_ends).watch(pid, ends)
        finally:
            os._exit(0)


def raylet_of(pid: int) -> int | None:
    """The raylet that is the ancestor of a process; None if there is none."""
    while pid > 1:
        try:
            # "PID (NAME) STATE PARENT …"; a name may contain spaces and brackets.
            begin, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")
        except (OSError, UnicodeDecodeError):
            return None
        if begin.partition(" (")[2] == "raylet":
            return pid
        pid = int(rest.split()[1])
    return None


class Watcher:
    """Keeps a standby running after a HAProxy that Serve started has ended."""

    def __init__(
        self, binary: str, folder: Path, manager_ends: int, node_ends: int | None = None
    ) -> None:
        self._command = [binary, "-db", "-dR", "-f", str(folder / _STANDBY_CONFIGURATION)]
        self._folder = folder
        self._manager_ends = manager_ends
        """Readable once the process that started this HAProxy has ended."""
        self._node_ends = node_ends
        """Readable once Ray's node has ended; None without one."""

    def watch(self, pid: int, ends: int) -> None:
        """Return when ``pid``, a HAProxy, and its standbys have ended, or the node has."""
        ended = _wait_for_any([ends] if self._node_ends is None else [ends, self._node_ends])
        if ends not in ended:
            self.stop_with_the_node(pid)
        elif not self._node_has_ended():
            self.replace(pid)

    def stop_with_the_node(self, pid: int) -> None:
        """Soft-stop a HAProxy whose node has ended."""
        if named(self._folder) == pid:
            (self._folder / HOLDER).unlink(missing_ok=True)
        print(f"the node has ended: HAProxy {pid} stops", file=sys.stderr, flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)

    def _node_has_ended(self) -> bool:
        return self._node_ends is not None and _wait(self._node_ends, timeout_s=0.0)

    def replace(self, pid: int) -> None:
        """Run a standby for ``pid``, which has ended, until a successor takes over."""
        if _wait(self._manager_ends, timeout_s=0.0):
            return
        while named(self._folder) == pid:
            print(f"HAProxy {pid} ended: starting a standby", file=sys.stderr, flush=True)
            standby = subprocess.Popen(self._command)
            pid = standby.pid
            _hold(self._folder, pid)
            self.wait_for(standby)
            time.sleep(_RESTART_PAUSE_S)

    def wait_for(self, standby: "subprocess.Popen[bytes]") -> None:
        """Wait until ``standby`` was replaced or killed. Stop it if it is abandoned."""
        abandoned_s = 0.0
        while True:
            try:
                standby.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                abandoned_s += _POLL_S if _wait(self._manager_ends, timeout_s=0.0) else 0.0
                if abandoned_s >= _ABANDONED_S or self._node_has_ended():
                    (self._folder / HOLDER).unlink(missing_ok=True)
                    standby.send_signal(signal.SIGUSR1)
            else:
                return


def _wait_for_any(ends: list[int]) -> list[int]:
    """Wait until at least one of these processes has ended; those that have."""
    return select.select(ends, [], [])[0]


def _wait(ends: int, timeout_s: float | None = None) -> bool:
    """Whether the process has ended."""
    return bool(select.select([ends], [], [], timeout_s)[0])


def named(folder: Path) -> int | None:
    """The pid in the holder file; None if there is none."""
    try:
        return int((folder / HOLDER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except (UnknownConfiguration, OSError, ValueError) as failure:
        sys.exit(f"HAProxy was not started: its configuration differs from Ray 2.60's: {failure}")
