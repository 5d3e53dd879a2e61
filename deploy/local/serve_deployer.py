"""Deploys the Serve applications onto a Ray cluster, and removes them.

Ray is imported only when a function is called, because it reads its environment at import. Run as a
module, this is a child process of `wallet up` and `wallet down`, with the right environment:

    python -m deploy.local.serve_deployer deploy [NODES]|drain

Serve places actors on the nodes that exist at that time. So if nodes start at the same time, deploy
waits for NODES of them, with a time-out.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from deploy.local.errors import StackError
from deploy.local.haproxy_drain import soft_stop_haproxy
from deploy.local.ports import answers
from deploy.local.processes import wait_until
from runtime.settings import Settings
from serve_app.applications import API, PROJECTIONS
from serve_app.auth.bind_policy import bind_policy_error

DONE_MARKER = "The deployer is done."
"""The last line of a successful child's log: only the parent process gets an exit code."""

_LISTENING_TIMEOUT_S = 60.0
_NODES_TIMEOUT_S = 30.0
_RUNNING_TIMEOUT_S = 150.0
_POLL_S = 0.1


def deploy(
    settings: Settings, address: str, applications: Collection[str], *, nodes: int = 1
) -> None:
    """Deploy `applications` onto the cluster at `address`; returns when Serve runs them.

    They start at the same time: most of the time is spent on Python imports.

    Raises:
        StackError: they don't start, or would accept unauthenticated remote clients (the replicas
            check again, with the address that Serve really listens on).
    """
    refusal = bind_policy_error(settings, settings.http_host)
    if refusal is not None:
        raise StackError(refusal)
    import ray

    with _connected(address):
        # If some nodes never join, deploy onto those that did.
        wait_until(lambda: _alive(ray.nodes()) >= nodes, timeout_s=_NODES_TIMEOUT_S)
        begin(settings, applications)
        _wait_for_applications(_all_running(applications), _RUNNING_TIMEOUT_S)


def begin(settings: Settings, applications: Collection[str]) -> None:
    """Begin to deploy `applications` onto the cluster that this process is connected to."""
    from ray import serve

    serve.start(http_options={"host": settings.http_host, "port": settings.http_port})
    serve.run_many(
        [target for target in _targets(settings) if target.name in applications],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def _alive(nodes: list[dict[str, Any]]) -> int:
    return sum(node["Alive"] for node in nodes)


def drain(settings: Settings, address: str) -> None:
    """Remove every application once its requests have finished, then shut Serve down."""
    from ray import serve

    with _connected(address):
        soft_stop_haproxy()
        for application in serve.status().applications:
            serve.delete(application, _blocking=False)
        # Replicas that don't finish in time are stopped by Serve itself.
        _wait_for_applications(lambda remaining: not remaining, 2 * settings.drain_timeout_s)
        serve.shutdown()


def _targets(settings: Settings) -> list[Any]:
    from ray.serve.api import RunTarget

    from serve_app.deployment import api_application, projections_application

    return [
        RunTarget(api_application(settings), name=API, route_prefix="/"),
        RunTarget(projections_application(settings), name=PROJECTIONS, route_prefix=None),
    ]


def _all_running(names: Collection[str]) -> Callable[[dict[str, Any]], bool]:
    def check(applications: dict[str, Any]) -> bool:
        for name in names:
            if name in applications and applications[name].status == "DEPLOY_FAILED":
                reported = applications[name].message.strip().rpartition("\n")[2]
                raise StackError(f"Serve could not start `{name}`: {reported}")
        return all(
            name in applications and applications[name].status == "RUNNING" for name in names
        )

    return check


def _wait_for_applications(holds: Callable[[dict[str, Any]], bool], timeout_s: float) -> None:
    from ray import serve

    deadline = time.monotonic() + timeout_s
    while not holds(applications := serve.status().applications):
        if time.monotonic() >= deadline:
            states = {name: str(found.status) for name, found in applications.items()}
            raise StackError(f"Serve's applications are still {states} after {timeout_s:.0f} s.")
        time.sleep(_POLL_S)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as failure:
        raise StackError(f"Can't connect to a Ray cluster at {address} ({failure}).") from failure
    try:
        yield
    finally:
        ray.shutdown()


def _deploy_when_ray_is_up(settings: Settings, address: str, nodes: int) -> None:
    import ray.serve  # noqa: F401  # takes 1–2 s, while Ray is still starting

    import serve_app.deployment  # noqa: F401

    host, _, port = address.rpartition(":")
    wait_until(lambda: answers(int(port), host), timeout_s=_LISTENING_TIMEOUT_S)
    deploy(settings, address, (API, PROJECTIONS), nodes=nodes)


def main(action: str, nodes: int = 1) -> int:
    """Entry point of the child process; the cluster's address is in its environment."""
    settings, address = Settings(), os.environ["RAY_ADDRESS"]
    try:
        if action == "deploy":
            _deploy_when_ray_is_up(settings, address, nodes)
        else:
            drain(settings, address)
    except StackError as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 1
    print(DONE_MARKER)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
