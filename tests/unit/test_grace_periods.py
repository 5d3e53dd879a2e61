"""A worker that is stopped has the time that leaving takes.

start of a replacement + draining of the old replica ≤ leaving
leaving + Ray's own drain + end of Ray ≤ the container's grace period
"""

import re
from typing import Any, Final

import pytest

from runtime.settings import Settings
from tests.unit.test_deploy_files import (
    COMPOSE,
    DEPLOY,
    PODS,
    RAY_ENV,
    SERVE_CONFIGS,
    _variables,
)

REPLACEMENT_STARTS_S: Final = 15
"""Of a replica on another node: 6 to 8 s were seen on two busy cores."""

RAY_ENDS_S: Final = 15
"""After SIGTERM Ray gives each of its processes a second, and then kills it."""

RAYS_OWN_DRAIN_S: Final = 30.0
"""What Ray waits for by default after SIGTERM, in ``ray start --block``."""

BALANCER_MARGIN_S: Final = 15

SCRIPT = (DEPLOY / "container/ray-node").read_text(encoding="utf-8")


def variables(container: Any) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def container_of(pod: str, name: str) -> Any:
    containers = [*PODS[pod].get("initContainers", []), *PODS[pod]["containers"]]
    (found,) = (one for one in containers if one["name"] == name)
    return found


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def compose_leaving_s() -> int:
    """Without a setting: the script's own default."""
    found = re.search(r"WALLET_LEAVE_TIMEOUT_S:-(\d+)\}", SCRIPT)
    assert found is not None
    return int(found[1])


def kuberay_leaving_s() -> int:
    return int(variables(container_of("worker", "ray-worker"))["WALLET_LEAVE_TIMEOUT_S"])


@pytest.mark.parametrize("leaving_s", [compose_leaving_s(), kuberay_leaving_s()])
@pytest.mark.parametrize("name", SERVE_CONFIGS)
def test_a_node_leaves_only_after_its_replicas_have(name: str, leaving_s: int) -> None:
    (api, *_) = SERVE_CONFIGS[name]["applications"]
    (ingress,) = (one for one in api["deployments"] if one["name"] == "Ingress")
    draining_s = float(_variables(RAY_ENV)["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"])

    assert REPLACEMENT_STARTS_S + draining_s + ingress["graceful_shutdown_timeout_s"] <= leaving_s


def test_composes_replicas_have_left_by_then() -> None:
    draining_s = float(_variables(RAY_ENV)["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"])

    left_s = REPLACEMENT_STARTS_S + draining_s + Settings().drain_timeout_s
    assert left_s <= compose_leaving_s()


def test_kubernetes_waits_until_a_worker_has_left() -> None:
    worker = container_of("worker", "ray-worker")
    rays_s = float(variables(worker).get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", RAYS_OWN_DRAIN_S))

    assert worker["lifecycle"]["preStop"]["exec"]["command"] == ["ray-node", "leave"]
    grace_s = PODS["worker"]["terminationGracePeriodSeconds"]
    assert kuberay_leaving_s() + rays_s + RAY_ENDS_S <= grace_s


def test_kubernetes_waits_until_the_head_has_ended() -> None:
    (head,) = PODS["head"]["containers"]
    rays_s = float(variables(head).get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", RAYS_OWN_DRAIN_S))

    assert rays_s + RAY_ENDS_S <= PODS["head"]["terminationGracePeriodSeconds"]


def test_the_balancer_of_a_pod_outlives_the_replicas_and_ends_in_time() -> None:
    (_, _, stops) = container_of("worker", "balancer")["lifecycle"]["preStop"]["exec"]["command"]
    before_s, after_s = map(int, re.findall(r"sleep (\d+)", stops))
    grace_s = PODS["worker"]["terminationGracePeriodSeconds"]

    assert "kill -USR1 1" in stops
    assert kuberay_leaving_s() <= before_s + after_s <= grace_s - BALANCER_MARGIN_S


def test_docker_waits_until_a_worker_has_left() -> None:
    assert "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 ray start --address" in SCRIPT
    for name in ("ray-worker", "ray-head"):
        grace_s = seconds(COMPOSE["services"][name]["stop_grace_period"])
        assert compose_leaving_s() + RAY_ENDS_S <= grace_s, name
