"""Does what systemd does with a unit of deploy/systemd/, so that the unit itself is what is tested.

Only the directives that the units use. Paths of an installation are replaced by those of this run.
"""

import os
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from deploy.local.processes import (
    ProcessRecord,
    is_alive,
    kill,
    processes_with_env,
    spawn,
)
from tests.cluster.network import Machine
from tests.support.commands import CHECKOUT, run_command

_SECTION: Final = "Service"
_POLL_S: Final = 0.1
_STOP_TIMEOUT_S: Final = 120.0

MEMBER: Final = "WALLET_TEST_NODE"
"""Names the unit in the environment of each of its processes, as a control group would."""


class Unit(NamedTuple):
    """The parts of a unit that decide what runs."""

    start: list[str]
    before: list[str]
    """ExecStartPre."""
    stop: list[str]
    """ExecStop; empty without."""
    environment_files: list[Path]
    restart_s: float


def directives(text: str) -> dict[str, list[str]]:
    """The values of each directive of ``[Service]``, in order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")) and section == _SECTION:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def read_unit(path: Path, places: Mapping[str, str]) -> Unit:
    """``places``: paths of an installation, and where they are in this run."""
    text = path.read_text()
    for place, here in places.items():
        text = text.replace(place, here)
    found = directives(text)
    assert found["Restart"] == ["always"]
    assert found["KillMode"] == ["control-group"]
    return Unit(
        start=shlex.split(found["ExecStart"][0]),
        before=shlex.split(found["ExecStartPre"][0]),
        stop=shlex.split(found.get("ExecStop", [""])[0]),
        environment_files=[Path(one) for one in found["EnvironmentFile"]],
        restart_s=float(found["RestartSec"][0]),
    )


def read_environment(path: Path) -> dict[str, str]:
    """The variables of a file such as deploy/ray.env."""
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Supervisor:
    """Runs a unit on a machine, again and again until it is stopped."""

    def __init__(self, unit: Unit, machine: Machine, extra: Mapping[str, str], log: Path) -> None:
        self.starts = 0
        self.failure: BaseException | None = None
        """What ended the supervision: a bug of the unit or of the test."""
        self._unit = unit
        self._machine = machine
        self._log = log
        log.touch()
        self._name = f"{machine.folder.name}-{os.getpid()}"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(machine.folder),
            **extra,
            MEMBER: self._name,
        }
        for file in unit.environment_files:
            self._environment |= read_environment(file)
        self._enabled = threading.Event()
        self._ends = threading.Event()
        self._main: ProcessRecord | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        return self._environment

    def enable(self) -> None:
        """`systemctl start`."""
        self._enabled.set()
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """`systemctl stop`: ExecStop, then the end of every process that is left."""
        self._enabled.clear()
        if self._unit.stop:
            said = run_command(
                ["sh", "-c", '"$@" 2>&1', "sh", *self._inside(self._unit.stop)],
                env=self._environment,
                timeout_s=_STOP_TIMEOUT_S,
            )
            with self._log.open("a") as log:
                log.write(said)
        self._end_members()

    def lose_power(self) -> None:
        """Kill everything at once; nothing starts again until it is enabled."""
        self._enabled.clear()
        self._end_members()

    def close(self) -> None:
        self._ends.set()
        self.lose_power()

    def crash(self) -> None:
        """Kill everything at once; it starts again by itself."""
        self._end_members()

    def is_running(self) -> bool:
        return self._main is not None and is_alive(self._main)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def _run(self) -> None:
        try:
            self._keep_running()
        except BaseException as failure:
            self.failure = failure
            raise

    def _keep_running(self) -> None:
        while not self._ends.is_set():
            if not self._enabled.wait(_POLL_S):
                continue
            self._start()
            while self.is_running():
                time.sleep(_POLL_S)
            self._end_members()  # KillMode=control-group
            time.sleep(self._unit.restart_s)

    def _start(self) -> None:
        run_command(self._expanded(self._unit.before), env=self._environment, timeout_s=60)
        self.starts += 1
        self._main = spawn(
            self._name,
            self._inside(self._unit.start),
            log_file=self._log,
            environment=self._environment,
            directory=CHECKOUT,
        )

    def _inside(self, command: Sequence[str]) -> list[str]:
        return self._machine.inside(self._expanded(command))

    def _expanded(self, command: Sequence[str]) -> list[str]:
        """With ${VARIABLES} replaced, as systemd does it."""
        found = list(command)
        for name, value in self._environment.items():
            found = [one.replace(f"${{{name}}}", value) for one in found]
        assert not any("${" in one for one in found), found
        return found

    def _end_members(self) -> None:
        while members := processes_with_env(MEMBER, self._name):
            kill(members)
