"""The `ray start` hook applies to every process that it starts."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from deploy.local import ray_start_hook
from deploy.local.ray_start_hook import prepare
from deploy.local.scheduling_policy import use_batch_scheduling

# The hook runs in a child process, because the test process must keep its scheduling policy.
_STARTER = """
import subprocess, sys
from types import SimpleNamespace
from deploy.local.ray_start_hook import prepare
prepare(SimpleNamespace(ray_client_server_port=10001, num_cpus=None), head=False)
ask = "import os; print(os.sched_getscheduler(0))"
subprocess.run([sys.executable, "-c", ask], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the policy")
def test_processes_of_a_node_run_under_sched_batch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STARTER], check=True, capture_output=True, text=True
    )

    assert int(done.stdout) == os.SCHED_BATCH


@pytest.mark.parametrize(("head", "port"), [(True, None), (False, 10001)])
def test_only_a_head_is_started_without_the_client_server(
    head: bool, port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_start_hook, "use_batch_scheduling", lambda: None)
    parameters = SimpleNamespace(ray_client_server_port=10001, num_cpus=2)

    prepare(parameters, head)

    assert parameters.ray_client_server_port == port


@pytest.mark.parametrize(
    ("head", "environment", "password"),
    [
        (True, {"RAY_REDIS_PASSWORD": "hunter2"}, "hunter2"),
        (True, {"RAY_REDIS_PASSWORD": ""}, "argument"),
        (True, {}, "argument"),
        (False, {"RAY_REDIS_PASSWORD": "hunter2"}, "argument"),
    ],
)
def test_a_head_takes_the_password_of_its_redis_from_the_environment(
    head: bool, environment: dict[str, str], password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_start_hook, "use_batch_scheduling", lambda: None)
    monkeypatch.delenv("RAY_REDIS_PASSWORD", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parameters = SimpleNamespace(
        ray_client_server_port=10001, redis_password="argument", num_cpus=2
    )

    prepare(parameters, head)

    assert parameters.redis_password == password


@pytest.mark.parametrize(
    ("cpus", "set_by_hand", "starts"),
    [(1, None, "1"), (2, None, "1"), (8, None, "4"), (8, "7", "7")],
)
def test_workers_that_start_have_half_of_the_cpus(
    cpus: int, set_by_hand: str | None, starts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_start_hook, "use_batch_scheduling", lambda: None)
    monkeypatch.delenv(ray_start_hook.STARTS_VARIABLE, raising=False)
    if set_by_hand is not None:
        monkeypatch.setenv(ray_start_hook.STARTS_VARIABLE, set_by_hand)

    prepare(SimpleNamespace(ray_client_server_port=10001, num_cpus=cpus), head=False)

    assert os.environ[ray_start_hook.STARTS_VARIABLE] == starts
    monkeypatch.setenv(ray_start_hook.STARTS_VARIABLE, starts)  # Restored at the end of the test.


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the policy")
def test_where_the_policy_can_not_be_had_it_is_said_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    use_batch_scheduling()

    assert "not in this sandbox" in caplog.text
