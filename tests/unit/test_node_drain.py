"""A node that is stopped: balancers, replicas, shards, HAProxy; every step has a limit."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.node import drain


@contextmanager
def titled(title: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with this title, which ends with the block.

    It has written a line before the block begins: Popen returns while the kernel still executes the
    program, and until then /proc has no arguments of it.
    """
    command = [title, "-c", "echo started; read x", *arguments]
    with subprocess.Popen(
        command, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        yield process


class Machine:
    """What a drain does, in order; time passes only while it waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.did: list[str] = []
        self.replicas_leave_at = 3.0
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        monkeypatch.setattr("deploy.node.drain.monotonic", lambda: self.now)
        monkeypatch.setattr("deploy.node.drain.sleep", self.sleep)
        monkeypatch.setattr(drain, "refuse_health", lambda: self.note("health refused"))
        monkeypatch.setattr(drain, "tell_ray", lambda limit: self.note(f"ray, {limit:.0f} s"))
        monkeypatch.setattr(drain, "processes", self.processes)
        monkeypatch.setattr(drain, "end", lambda _pids, number: self.note(f"shards {number.name}"))
        monkeypatch.setattr(drain, "stop_haproxy", lambda: self.note("haproxy"))
        monkeypatch.setattr(sys, "argv", ["drain"])

    def note(self, what: str) -> None:
        self.did.append(f"{self.now:.0f} {what}")

    def sleep(self, time_s: float) -> None:
        self.now += time_s

    def processes(self, title: str, *_more: str) -> list[int]:
        return [1] if "Replica" not in title or self.now < self.replicas_leave_at else []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_load_balancers_have_their_time_before_anything_ends(machine: Machine) -> None:
    drain.main()
    assert machine.did == ["0 health refused", "0 ray, 35 s", "10 shards SIGKILL", "10 haproxy"]


def test_shards_end_after_the_last_replica(machine: Machine) -> None:
    machine.replicas_leave_at = 21.0
    drain.main()
    assert machine.did[2:] == ["21 shards SIGKILL", "21 haproxy"]


def test_a_replica_that_stays_is_not_waited_for_for_ever(machine: Machine) -> None:
    machine.replicas_leave_at = float("inf")
    drain.main()
    assert machine.did[2:] == ["50 shards SIGKILL", "50 haproxy"]


def test_the_time_of_load_balancers_can_be_set(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(drain.BALANCERS_VARIABLE, "25")
    drain.main()
    assert machine.did == ["0 health refused", "0 ray, 50 s", "25 shards SIGKILL", "25 haproxy"]


def test_a_head_is_not_drained_by_ray(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["drain", "--head"])
    drain.main()
    assert machine.did == ["0 health refused", "10 shards SIGKILL", "10 haproxy"]


def test_each_haproxy_of_the_node_is_asked_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_SOCKET_PATH", str(tmp_path / "a.sock"))
    (tmp_path / "node").mkdir()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "a.sock").touch()  # of a HAProxy that has ended
    said: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as admin:
        admin.bind(str(tmp_path / "node" / "a.sock"))
        admin.listen()

        def answer() -> None:
            connection, _ = admin.accept()
            with connection:
                said.append(connection.recv(1024))
                connection.sendall(b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        refused = drain.refuse_health()
        thread.join()

    assert refused == 1
    assert said == [b"set server this-node/accepts state maint\n"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_processes_of_this_machine_are_found_by_their_title() -> None:
    title = f"ray::Test{os.getpid()}"
    with titled("other") as other, titled(title) as renamed:
        assert drain.processes(title) == [renamed.pid]
        drain.end([renamed.pid, 2**22 - 1], signal.SIGKILL)
        renamed.wait()
        assert drain.processes(title) == []
        assert not drain.is_alive(renamed.pid)
        assert drain.is_alive(other.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ray_s_id_of_the_node_is_in_the_arguments_of_its_raylet() -> None:
    with titled("/x/raylet", "--node_id=ab12") as raylet:
        assert raylet.pid in drain.processes_with(drain.is_raylet)
        assert drain.node_id(raylet.pid) == "ab12"
    assert drain.node_id(raylet.pid) == ""


def test_without_a_head_a_drain_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(drain, "processes_with", lambda _is_meant: [1])
    monkeypatch.setattr(drain, "node_id", lambda _pid: "ab12")

    def hangs(*_arguments: object, **_options: object) -> None:
        raise subprocess.TimeoutExpired("ray", 20)

    monkeypatch.setattr("deploy.node.drain.subprocess.run", hangs)
    drain.tell_ray(50)
    assert "does not answer" in capsys.readouterr().err
