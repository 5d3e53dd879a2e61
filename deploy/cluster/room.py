"""Whether a deployment finds room on the nodes, and where its processes will be.

New shards and projections start beside the old ones, so both must fit. Ingress replicas are
replaced one after the other: a new one gets the CPUs of the one before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from deploy.cluster.demand import (
    PROJECTION_MEMORY_BYTES,
    REPLICA_MEMORY_BYTES,
    SHARD_CPUS_MIN,
    SHARD_MEMORY_BYTES,
    Demand,
)
from deploy.cluster.state import ClusterState, Kind, NodeState
from runtime.placement.spread import Node, per_node_max, spread

KINDS: Final[tuple[Kind, ...]] = ("shard", "ingress", "projection")
_MEMORY: Final[Mapping[Kind, int]] = {
    "shard": SHARD_MEMORY_BYTES,
    "ingress": REPLICA_MEMORY_BYTES,
    "projection": PROJECTION_MEMORY_BYTES,
}
_ROUNDED: Final = 1e-4


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The result: the placement that is expected, and what does not fit."""

    placement: dict[Kind, dict[str, int]]
    """Processes by kind and node."""
    problems: list[str]
    """One sentence each, with a node and the share that it lacks."""
    notes: list[str]


def find_room(state: ClusterState, demand: Demand) -> Room:
    """Place what ``demand`` will start on the cluster as it is."""
    search = _Search([node for node in state.nodes if node.cpus > 0])
    if not search.nodes:
        problem = "The cluster has no node with CPUs. Start one with `ray start --num-cpus=N`."
        return Room(placement={}, problems=[problem], notes=[])
    if demand.shards:
        search.place("shard", demand.shards, demand.shard_cpus)
    if demand.replicas:
        cap = demand.replicas_per_node_max or per_node_max(demand.replicas, len(search.nodes))
        search.replace_replicas(state, demand.replicas, demand.replica_cpus, cap)
    if demand.projections:
        search.place("projection", demand.projections, SHARD_CPUS_MIN)
    search.check_memory(state)
    return Room(placement=search.placement, problems=search.problems, notes=search.notes)


def shortage(what: str, cpus: float, nodes: Sequence[NodeState]) -> str | None:
    """Why no node has room for one process; None if one has. Names the node that lacks least."""
    if any(node.free_cpus + _ROUNDED >= cpus for node in nodes):
        return None
    nearest = max(nodes, key=lambda node: node.free_cpus)
    free = ", ".join(f"{node.name} {node.free_cpus:g} of {node.cpus:g}" for node in nodes)
    return (
        f"No node has room for {what}: it needs {cpus:g} CPUs, {cpus - nearest.free_cpus:g} more "
        f"than {nearest.name} has free. Free: {free}."
    )


class _Search:
    """The search for room: nodes, and what was given away so far."""

    def __init__(self, nodes: Sequence[NodeState]) -> None:
        self.nodes = list(nodes)
        self.placement: dict[Kind, dict[str, int]] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def place(self, kind: Kind, count: int, cpus: float) -> None:
        """Place ``count`` new processes beside everything that runs."""
        found = spread(count, [Node(one.id, one.free_cpus) for one in self.nodes], cpus=cpus)
        placed = Counter(node for node in found.values() if node is not None)
        self._take(placed, cpus)
        self.placement[kind] = self._by_name(placed)
        self._report(kind, count - placed.total(), count, cpus)

    def replace_replicas(self, state: ClusterState, count: int, cpus: float, cap: int) -> None:
        """Place ``count`` ingress replicas, at most ``cap`` a node, instead of those that run."""
        running = Counter(one.node for one in state.of_kind("ingress") if one.node is not None)
        before = [
            msgspec.structs.replace(node, free_cpus=node.free_cpus + running[node.id] * cpus)
            for node in self.nodes
        ]
        placed: Counter[str] = Counter()
        for _ in range(count):
            roomy = [
                node.id
                for node in before
                if placed[node.id] < cap
                and node.free_cpus - placed[node.id] * cpus + _ROUNDED >= cpus
            ]
            if not roomy:
                break
            placed[min(roomy, key=placed.__getitem__)] += 1
        self.placement["ingress"] = self._by_name(placed)
        if placed.total() == count:
            self._note_uneven(count, cap)
        elif cap * len(self.nodes) < count:
            self.problems.append(
                f"{count} ingress replicas don't fit on {len(self.nodes)} nodes with at most {cap} "
                f"each: {count - cap * len(self.nodes)} would wait for a node."
            )
        else:
            self._report("ingress", count - placed.total(), count, cpus)

    def check_memory(self, state: ClusterState) -> None:
        """Compare what starts with the memory that is available, where that is known."""
        ingress = Counter(one.node for one in state.of_kind("ingress"))
        for node in self.nodes:
            if node.free_memory_bytes is None:
                continue
            new = {kind: self.placement.get(kind, {}).get(node.name, 0) for kind in KINDS}
            new["ingress"] = max(new["ingress"] - ingress[node.id], 0)
            needed = sum(_MEMORY[kind] * count for kind, count in new.items())
            if needed > node.free_memory_bytes:
                self.problems.append(
                    f"{node.name} has {node.free_memory_bytes / 1e6:,.0f} MB of memory available "
                    f"and needs {needed / 1e6:,.0f} MB for {_listed(new)}: "
                    f"{(needed - node.free_memory_bytes) / 1e6:,.0f} MB are missing."
                )

    def _note_uneven(self, count: int, cap: int) -> None:
        if count > len(self.nodes) and count % len(self.nodes):
            self.notes.append(
                f"{count} ingress replicas are no multiple of {len(self.nodes)} nodes: with at "
                f"most {cap} each, a node may have fewer than its share."
            )

    def _take(self, placed: Counter[str], cpus: float) -> None:
        self.nodes = [
            msgspec.structs.replace(node, free_cpus=node.free_cpus - placed[node.id] * cpus)
            for node in self.nodes
        ]

    def _by_name(self, placed: Counter[str]) -> dict[str, int]:
        return {node.name: placed[node.id] for node in self.nodes}

    def _report(self, kind: Kind, missing: int, count: int, cpus: float) -> None:
        if missing:
            names = {"shard": "shards", "ingress": "ingress replicas", "projection": "projections"}
            what = f"{missing} of {count} new {names[kind]}"
            problem = shortage(what, cpus, self.nodes)
            self.problems.append(problem or f"No node has room for {what}.")


def _listed(counts: Mapping[Kind, int]) -> str:
    names = {"shard": "shards", "ingress": "ingress replicas", "projection": "projections"}
    return ", ".join(f"{count} {names[kind]}" for kind, count in counts.items() if count)
