"""Clusters for unit tests of `wallet deploy`: made of values, changed by hand."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from deploy.cluster.state import ActorState, ApplicationState, ClusterState, NodeState
from deploy.local.errors import StackError

API_CONFIG = {
    "name": "api",
    "import_path": "serve_app.deployment:api",
    "route_prefix": "/",
    "args": {"shard_count": 4, "shard_num_cpus": 0.5, "revision": "1"},
    "deployments": [{"name": "Ingress", "num_replicas": 3}],
}
PROJECTIONS_CONFIG = {
    "name": "projections",
    "import_path": "serve_app.deployment:projections",
    "route_prefix": None,
    "args": {"projection_groups": 2},
}


def config(*applications: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"applications": list(applications or (API_CONFIG, PROJECTIONS_CONFIG)), **more}


def node(number: int, free_cpus: float, *, cpus: float = 4.0, memory: int | None = None) -> Any:
    return NodeState(
        id=f"id-{number}",
        name=f"10.0.0.{number}",
        is_head=number == 0,
        cpus=cpus,
        free_cpus=free_cpus,
        free_memory_bytes=memory,
    )


def shard(number: int, on: int | None, *, version: str = "v1", is_alive: bool = True) -> ActorState:
    return ActorState(
        name=f"SERVE_DEPLOYMENT_ACTOR::api::Ingress::{version}::shard-{number}",
        class_name="ShardActor",
        node=None if on is None else f"id-{on}",
        cpus=0.5,
        is_alive=is_alive and on is not None,
    )


def replica(name: str, on: int | None) -> ActorState:
    return ActorState(
        name=f"SERVE_REPLICA::api#Ingress#{name}",
        class_name="ServeReplica:api:Ingress",
        node=None if on is None else f"id-{on}",
        cpus=0.01,
        is_alive=on is not None,
    )


def projection(number: int, on: int) -> ActorState:
    return ActorState(
        name=f"SERVE_DEPLOYMENT_ACTOR::projections::Projections::v1::projection-{number}",
        class_name="ProjectionActor",
        node=f"id-{on}",
        cpus=0.01,
        is_alive=True,
    )


def application(
    raw: dict[str, Any], *, at_s: float = 1.0, status: str = "RUNNING", message: str = ""
) -> ApplicationState:
    return ApplicationState(
        name=raw["name"],
        status=status,
        message=message,
        deployed_at_s=at_s,
        config=raw,
        settings={},
        replicas={},
    )


def cluster_state(*nodes: NodeState, actors: Any = (), applications: Any = ()) -> ClusterState:
    return ClusterState(
        nodes=nodes,
        actors=actors,
        applications={one.name: one for one in applications},
        http=("0.0.0.0", 8089) if applications else None,  # nothing listens
    )


class ScriptedCluster:
    """A cluster whose states follow one another; the last one stays. Time passes with `sleep`."""

    address = "http://head:8265"

    def __init__(self, *states: ClusterState | StackError) -> None:
        self._states = list(states)
        self.now_s = 0.0
        self.deployed: list[dict[str, Any]] = []
        self.on_sleep: Callable[[float], None] = lambda _: None

    def read(self) -> ClusterState:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, StackError):
            raise state
        return state

    def deploy(self, config: dict[str, Any]) -> None:
        self.deployed.append(config)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def changed(raw: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """The application with other arguments."""
    return {**raw, "args": {**raw["args"], **arguments}}


def moved(state: ClusterState, **more: Any) -> ClusterState:
    return msgspec.structs.replace(state, **more)
