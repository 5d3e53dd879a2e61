"""A cluster through a Ray driver: the local stack, or `HEAD:6379` on one of its nodes.

Ray is imported only when a driver is opened, because it reads its environment at import.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil

from deploy.cluster.state import (
    ActorState,
    ClusterState,
    NodeState,
    applications_from,
    http_from,
    unreachable,
)
from deploy.local.errors import StackError

_ANSWER_TIMEOUT_S: Final = 15.0
_STARTING: Final = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "RESTARTING")


@contextmanager
def connected(address: str) -> Iterator["DriverCluster"]:
    """The cluster at ``address``. Ray's environment variables must be set already.

    Raises:
        StackError: can't connect.
    """
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as failure:
        raise StackError(f"Can't connect to a Ray cluster at {address} ({failure}).") from failure
    try:
        yield DriverCluster(address)
    finally:
        ray.shutdown()


class DriverCluster:
    """Implements `Cluster`."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def address(self) -> str:
        return self._address

    def read(self) -> ClusterState:
        import ray
        from ray.exceptions import RayError

        try:
            details = self._details()
            return ClusterState(
                nodes=_nodes(),
                actors=_actors(),
                applications=applications_from(details),
                http=http_from(details) if details else None,
            )
        except (RayError, ray.exceptions.GetTimeoutError, ConnectionError) as failure:
            raise unreachable(self._address, failure) from failure

    def deploy(self, config: dict[str, Any]) -> None:
        import ray
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        schema = ServeDeploySchema.model_validate(config)
        try:
            serve.start(
                proxy_location=schema.proxy_location,
                http_options=schema.http_options.model_dump(),
                logging_config=schema.logging_config,
            )
            client = _get_global_client()
            assert client is not None, "just started"
            client.deploy_apps(schema)
        except (RayError, ray.exceptions.GetTimeoutError) as failure:
            reason = str(failure).strip().rpartition("\n")[2]
            raise StackError(f"Serve refused the configuration: {reason}") from failure

    def _details(self) -> dict[str, Any]:
        """Serve's `ServeInstanceDetails`; empty: Serve does not run."""
        import ray
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

        try:
            controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        except ValueError:
            return {}
        answer = controller.get_serve_instance_details.remote()
        found: dict[str, Any] = ray.get(answer, timeout=_ANSWER_TIMEOUT_S)
        return found


def _nodes() -> list[NodeState]:
    import ray
    from ray._private import state

    free: dict[str, dict[str, float]] = state.available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"]]
    memory = psutil.virtual_memory().available if len(alive) == 1 else None
    return [
        NodeState(
            id=node["NodeID"],
            name=node["NodeManagerAddress"],
            is_head="node:__internal_head__" in node["Resources"],
            cpus=node["Resources"].get("CPU", 0.0),
            free_cpus=free.get(node["NodeID"], {}).get("CPU", 0.0),
            free_memory_bytes=memory,
        )
        for node in alive
    ]


def _actors() -> list[ActorState]:
    from ray._private import state

    return [
        ActorState(
            name=row["Name"] or "",
            class_name=row["ActorClassName"] or "",
            node=_known(row["Address"]["NodeID"]),
            cpus=0.0,  # Ray does not say here; `free_cpus` has them.
            is_alive=status == "ALIVE",
        )
        for status in ("ALIVE", *_STARTING)
        for row in state.actors(actor_state_name=status).values()
    ]


def _known(node: str) -> str | None:
    """Ray's id of no node consists of ``f``."""
    return node if node.strip("f") else None
