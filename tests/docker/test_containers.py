"""The service in containers: works, loses nothing on a kill, keeps its data.

The tests run on one set of containers in this order.
"""

import os
import subprocess
import sys
import time

import pytest

from deploy.local.processes import wait_until
from deploy.local.readiness_client import fetch_readiness
from tests.docker.stack import Containers
from tests.e2e.api import Api
from tests.support.commands import CHECKOUT
from tests.support.steady_load import assert_nothing_lost, steady_load

pytestmark = pytest.mark.timeout(900)

SHARD = "ray::ShardActor"
INGRESS = "ray::ServeReplica:api:Ingress"
OURS = ("ray-head", "ray-worker")

AGAIN_S = 30.0
"""A lost container is detected after about 5 s; its actors restart elsewhere soon after."""


def everywhere(containers: Containers, title: str) -> list[int]:
    """The number of these processes per container."""
    return [
        containers.processes(container, title)
        for service in OURS
        for container in containers.containers(service)
    ]


def is_ready(containers: Containers) -> bool:
    return wait_until(lambda: fetch_readiness(containers.url).is_ready, timeout_s=60)


def test_our_containers_can_do_little(containers: Containers) -> None:
    for service in OURS:
        for container in containers.containers(service):
            found = containers.inspect(container)
            assert found["Config"]["User"] == "wallet"
            assert found["HostConfig"]["CapDrop"] == ["ALL"]
            assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
            assert not found["HostConfig"]["Privileged"]


def test_head_and_worker_share_the_work(containers: Containers) -> None:
    assert everywhere(containers, SHARD) == [1, 1]
    assert everywhere(containers, INGRESS) == [1, 1]


def test_the_end_to_end_tests_pass_against_the_containers(
    containers: Containers, log: list[str]
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/e2e", "--quiet", "-p", "no:cacheprovider"),
            # Starts and stops stacks of `wallet up`; nothing of it touches the containers.
            *("--ignore", "tests/e2e/test_stack_lifecycle.py"),
        ],
        env={
            **os.environ,
            "WALLET_TEST_URL": containers.url,
            "WALLET_TEST_DATABASE_URL": containers.database_url,
            "WALLET_TEST_NATS_URL": containers.nats_url,
        },
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    log.append(f"end-to-end tests: {lines[-1] if lines else 'said nothing'}")

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


def test_a_killed_worker_costs_a_pause_and_no_write(containers: Containers, log: list[str]) -> None:
    with steady_load(containers.url) as load:
        containers.compose("kill", "ray-worker")
        killed_at = time.monotonic()
        load.wait_for_each(2, timeout_s=60)
        again_s = time.monotonic() - killed_at
    log.append(
        f"worker killed: every wallet written again after {again_s:.1f} s, longest wait of a "
        f"write {load.longest_wait_s:.1f} s, failed attempts: {dict(load.failures) or 'none'}"
    )

    assert_nothing_lost(load)
    assert load.longest_wait_s < AGAIN_S
    assert sum(everywhere(containers, SHARD)) == 2


def test_workers_are_scaled_and_the_work_spreads_with_one_command(
    containers: Containers, log: list[str]
) -> None:
    containers.up("--no-recreate", "--scale", "ray-worker=2")
    assert len(containers.containers("ray-worker")) == 2

    with steady_load(containers.url) as load:
        began = time.monotonic()
        more = ["--env", "WALLET_SHARD_COUNT=3", "--env", "WALLET_INGRESS_REPLICAS=3"]
        containers.compose("exec", "--no-TTY", *more, "ray-head", "wallet", "api")
        took_s = time.monotonic() - began
        load.wait_for_each(2, timeout_s=60)
    log.append(
        f"2 → 3 shards and replicas in {took_s:.0f} s: longest wait of a write "
        f"{load.longest_wait_s:.2f} s, failed attempts: {dict(load.failures) or 'none'}"
    )

    assert_nothing_lost(load)
    assert load.failures == {}
    assert everywhere(containers, SHARD) == [1, 1, 1]
    assert everywhere(containers, INGRESS) == [1, 1, 1]


def test_a_worker_that_is_stopped_fails_no_request(containers: Containers, log: list[str]) -> None:
    with steady_load(containers.url) as load:
        began = time.monotonic()
        containers.up("--no-recreate", "--scale", "ray-worker=1")
        took_s = time.monotonic() - began
        load.wait_for_each(2, timeout_s=60)
    log.append(
        f"worker stopped in {took_s:.0f} s: longest wait of a write {load.longest_wait_s:.1f} s, "
        f"failed attempts: {dict(load.failures) or 'none'}"
    )

    assert_nothing_lost(load)
    assert load.failures == {}
    assert len(containers.containers("ray-worker")) == 1
    assert sum(everywhere(containers, SHARD)) == 3


def test_data_outlives_the_containers(containers: Containers) -> None:
    with Api(containers.url) as api:
        wallet = api.new_wallet("12.34")

    containers.compose("down", "--timeout", "60")
    containers.up()

    assert is_ready(containers)
    with Api(containers.url) as api:
        assert api.state(wallet)["balance"] == "12.34"
        assert api.debit(wallet, {"amount": "1.00", "status": "completed"}).status_code == 201
