"""Starts HAProxy for Ray Serve: with a configuration of ours, and with a standby beside it.

Serve starts this program in HAProxy's place (`haproxy_on_loopback.py`), and it becomes HAProxy once
it has changed the configuration (`haproxy_configuration.py`). The process id stays the same, which
Serve checks.

The standby. Serve finds a dead HAProxy by three failed checks and starts a process to start
another: 9 s without a front door. So a watcher beside each HAProxy waits for its end, and starts
one with the same routes at once. That one has no admin socket: Serve's checks fail as they would
without it, Serve starts its own HAProxy as it would, and that takes the port over as soon as it
knows its routes. In the meantime routes stay as they were; replicas that end are found by checks.

Who serves is written in a file beside the configuration. A HAProxy that ends and is not named there
was replaced, or was stopped on purpose (`front_door.py` removes the file first): no standby starts.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from deploy.local.haproxy_configuration import ClientTimeouts, UnknownConfiguration, prepared

HOLDER: Final = "front-port.pid"
"""The file that names the process which listens on the front port."""

_STANDBY_CONFIGURATION: Final = "standby.conf"

_RESTART_PAUSE_S: Final = 0.5
"""Between two standbys that end by themselves."""

_ABANDONED_S: Final = 60.0
"""A standby ends when the process that Serve had for its predecessor is gone for so long and no
successor has come: the node is being stopped. A successor takes about 10 s."""

_LOOK_S: Final = 1.0


def main(binary: str, arguments: list[str]) -> None:
    """Become HAProxy.

    Raises:
        UnknownConfiguration: the configuration is not as it is known; nothing was started.
    """
    configuration = Path(arguments[arguments.index("-f") + 1])
    found = prepared(configuration.read_text(encoding="utf-8"), timeouts_of(os.environ))
    configuration.write_text(found.text, encoding="utf-8")
    if found.standby is not None:
        folder = configuration.parent
        (folder / _STANDBY_CONFIGURATION).write_text(found.standby, encoding="utf-8")
        arguments = _taking_over(arguments, _holder(folder))
        _hold(folder, os.getpid())
        _start_watcher(binary, folder)
    os.execv(binary, [binary, *arguments])  # noqa: S606 - the very program that Serve wants


def timeouts_of(environment: "os._Environ[str] | dict[str, str]") -> ClientTimeouts:
    """From the variables that stand beside those of Serve (`ray_environment.py`)."""
    return ClientTimeouts(
        header_s=int(environment.get("WALLET_HAPROXY_TIMEOUT_HTTP_REQUEST_S", "10")),
        idle_s=int(environment.get("WALLET_HAPROXY_TIMEOUT_HTTP_KEEP_ALIVE_S", "60")),
    )


def _holder(folder: Path) -> int | None:
    """The process that listens on the front port, if it lives and is a HAProxy of this folder."""
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
    """``arguments`` with the holder among those that give up their ports (``-sf``)."""
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
    manager_ends = os.pidfd_open(os.getppid())
    if os.fork() == 0:
        try:
            os.setsid()
            _wait(ends)
            Watcher(binary, folder, manager_ends).replace(pid)
        finally:
            os._exit(0)


class Watcher:
    """Keeps a standby running after the end of a HAProxy that Serve started."""

    def __init__(self, binary: str, folder: Path, manager_ends: int) -> None:
        self._command = [binary, "-db", "-dR", "-f", str(folder / _STANDBY_CONFIGURATION)]
        self._folder = folder
        self._manager_ends = manager_ends
        """Readable once the process has ended that started this HAProxy."""

    def replace(self, pid: int) -> None:
        """Stand by for ``pid``, which has ended, until a successor takes over."""
        if _wait(self._manager_ends, timeout_s=0.0):
            return
        while named(self._folder) == pid:
            print(f"HAProxy {pid} ended: its standby starts", file=sys.stderr, flush=True)
            standby = subprocess.Popen(self._command)
            pid = standby.pid
            _hold(self._folder, pid)
            self.wait_for(standby)
            time.sleep(_RESTART_PAUSE_S)

    def wait_for(self, standby: "subprocess.Popen[bytes]") -> None:
        """Until ``standby`` has ended: replaced, killed, or by us because nobody comes."""
        abandoned_s = 0.0
        while True:
            try:
                standby.wait(timeout=_LOOK_S)
            except subprocess.TimeoutExpired:
                abandoned_s += _LOOK_S if _wait(self._manager_ends, timeout_s=0.0) else 0.0
                if abandoned_s >= _ABANDONED_S:
                    (self._folder / HOLDER).unlink(missing_ok=True)
                    standby.send_signal(signal.SIGUSR1)
            else:
                return


def _wait(ends: int, timeout_s: float | None = None) -> bool:
    """Whether the process has ended."""
    return bool(select.select([ends], [], [], timeout_s)[0])


def named(folder: Path) -> int | None:
    """The process that is named as the one that listens on the front port."""
    try:
        return int((folder / HOLDER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except (UnknownConfiguration, OSError, ValueError) as failure:
        sys.exit(
            f"HAProxy was not started: its configuration is not as Ray 2.60 writes it: {failure}"
        )
