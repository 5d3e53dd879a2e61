"""Recorded processes: the right process tree is stopped, and never an unrelated process."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.processes import (
    ProcessRecord,
    is_alive,
    kill,
    process_tree,
    processes_with_env,
    record,
    spawn,
    stop,
    wait_until,
)

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
    "time.sleep(60)"
)
PARENT = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print('born', flush=True);"
    "time.sleep(60)"
)
FLEEING_PARENT = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}],"
    "start_new_session=True)"
)

FORGETFUL_PARENT = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {PARENT!r}], env={{}}); time.sleep(60)"
)
"""Its child and grandchild have another environment, as Ray's agents do after a change of title."""


class Processes:
    """Starts Python processes that are always killed after the test."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "process.log"
        self._marker = f"{os.getpid()}-{id(self)}"

    def start(self, code: str) -> ProcessRecord:
        environment = {"MARKER": self._marker}
        return spawn("it", [sys.executable, "-c", code], log_file=self.log, environment=environment)

    def all(self) -> list[psutil.Process]:
        return processes_with_env("MARKER", self._marker)

    def wait_for_output(self, text: str) -> None:
        assert wait_until(lambda: text in self.log.read_text(), timeout_s=10)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    kill(started.all())


def test_a_spawned_process_is_alive_until_it_is_stopped(processes: Processes) -> None:
    process = processes.start(SLEEP)

    assert is_alive(process)
    assert stop(process)
    assert not is_alive(process)


def test_stopping_twice_is_harmless(processes: Processes) -> None:
    process = processes.start(SLEEP)
    stop(process)

    assert not stop(process)


def test_a_reused_pid_is_another_process_and_is_never_signalled(processes: Processes) -> None:
    client = processes.start(SLEEP)
    stale = client.model_copy(update={"start_time": "before the last boot"})

    assert not is_alive(stale)
    assert process_tree(stale) == []
    assert not stop(stale)
    assert is_alive(client)


def test_a_process_that_ended_by_itself_is_not_alive(processes: Processes) -> None:
    process = processes.start("pass")

    assert wait_until(lambda: not is_alive(process), timeout_s=10)


def test_a_family_is_stopped_as_one(processes: Processes) -> None:
    process = processes.start(PARENT)
    processes.wait_for_output("born")
    assert len(process_tree(process)) == 2

    stop(process, signals=((signal.SIGTERM, 0.1),))

    assert processes.all() == []


def test_a_process_that_ignores_the_signal_is_killed_after_its_grace(processes: Processes) -> None:
    process = processes.start(STUBBORN)
    processes.wait_for_output("deaf")

    assert stop(process, signals=((signal.SIGTERM, 0.1),))

    assert not is_alive(process)


def test_an_orphan_is_found_by_what_its_environment_says(processes: Processes) -> None:
    process = processes.start(FLEEING_PARENT)

    assert wait_until(lambda: not is_alive(process), timeout_s=10)
    assert len(processes.all()) == 1


def test_descendants_are_found_whatever_their_environment(processes: Processes) -> None:
    processes.start(FORGETFUL_PARENT)
    processes.wait_for_output("born")

    family = processes.all()
    assert len(family) == 3
    kill(family)
    assert not [one for one in family if one.is_running() and one.status() != "zombie"]


def test_a_process_is_never_found_by_itself(processes: Processes) -> None:
    own = psutil.Process().environ()
    variable = next(name for name, value in own.items() if value and "=" not in value)
    started = processes.start(PARENT)
    processes.wait_for_output("born")

    found = [one.pid for one in processes_with_env(variable, own[variable])]
    assert os.getpid() not in found
    assert started.pid not in found


def test_a_record_survives_being_written_down(processes: Processes) -> None:
    process = processes.start(SLEEP)

    read = ProcessRecord.model_validate_json(process.model_dump_json())

    assert is_alive(read)
    assert read == record("it", process.pid)


def test_a_record_of_the_release_before_is_still_read() -> None:
    former = b'{"name":"nats","pid":1,"birth":"2026-01-01"}'
    assert ProcessRecord.model_validate_json(former).start_time == "2026-01-01"
