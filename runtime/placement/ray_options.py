"""Chooses the node of a deployment's actor when Serve's controller creates it.

Serve creates the actors of `DeploymentActorConfig` in its controller, all with the options that
were deployed: at the first start, and again whenever one is lost. Ray's own SPREAD takes turns over
the nodes with a counter that all actors of the cluster share, so two shards may follow each other
onto one node. Here the controller looks at the cluster at that moment: see
`runtime.placement.spread`.

The choice is a soft affinity. If the node is lost meanwhile or has no room any more, Ray takes
another one: an actor that waits for its node would be worse than an uneven placement, because
Serve starts no replica while one of the deployment's actors is missing.
"""

import time
from collections.abc import Iterable
from typing import Any, Final

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runtime.placement.placements import ClusterView, Placements
from runtime.placement.spread import Node

GROUP_SIZE: Final = "group_size"
"""Our own among the actor's options: the number of members."""

_log = structlog.get_logger(__name__)


def with_node(options: dict[str, Any]) -> dict[str, Any]:
    """Ray's options for an actor whose options have `GROUP_SIZE`, with the node chosen.

    The name must end in the member's number. Without a choice the options' own strategy remains:
    no node has room now, so Ray takes the first that will.
    """
    options = dict(options)
    size, name = options.pop(GROUP_SIZE), options["name"]
    try:
        chosen = _placements.choose(name, cpus=options["num_cpus"], group_size=size)
    except Exception as failure:  # noqa: BLE001  # whatever Ray raises, the actor must start
        _log.warning("placement left to ray", actor=name, error=str(failure))
        return options
    if chosen is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(
            chosen, soft=True, _spill_on_unavailable=True
        )
    return options


def nodes_accepting_actors() -> int:
    """Nodes of the cluster that have CPUs and are not draining; 1 without a cluster."""
    return max(len(_nodes()), 1) if ray.is_initialized() else 1


def _look() -> ClusterView:
    from ray._private import state

    actors = state.actors(actor_state_name="ALIVE").values()
    running = {str(one["Name"]): str(one["Address"]["NodeID"]) for one in actors if one["Name"]}
    return ClusterView(_nodes(), running)


def _nodes() -> list[Node]:
    from ray._private import state
    from ray._private.worker import global_worker

    free: dict[str, dict[str, float]] = state.available_resources_per_node()
    draining: Iterable[str] = global_worker.gcs_client.get_draining_nodes()
    return [
        Node(node["NodeID"], free.get(node["NodeID"], {}).get("CPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0.0) > 0
        and node["NodeID"] not in draining
    ]


_placements: Final = Placements(_look, clock=time.monotonic)
"""Of this process, which is Serve's controller: it creates the actors of every deployment."""
