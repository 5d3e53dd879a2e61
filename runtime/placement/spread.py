"""Which node each actor of a group gets: as evenly as the nodes' free CPUs allow.

A group is the shards, or the projections, of one deployed version. Two versions run at the same
time during an upgrade; each is spread by itself, so that the placement is even once the old one is
gone.

Everything here is a pure function of what the cluster looks like. Members are created one after the
other, and each computes the whole group again, so every one of them must get the same result while
its predecessors are still starting: ties are decided by the order of the nodes alone.
"""

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_EPSILON: Final = 1e-4
"""Ray counts resources in units of this."""


class Node(NamedTuple):
    """A node that accepts actors."""

    id: str
    free_cpus: float
    """CPUs that no actor reserves."""


def per_node_max(count: int, nodes: int) -> int:
    """The cap: how many of ``count`` one of ``nodes`` nodes has when they are spread evenly."""
    return math.ceil(count / max(nodes, 1))


def spread(
    count: int,
    nodes: Sequence[Node],
    *,
    cpus: float,
    placed: Mapping[int, str] | None = None,
    group: str = "",
) -> dict[int, str | None]:
    """The node of each of ``count`` members; None: no node has room for this one.

    ``cpus``: what one member reserves. ``placed``: members that run, which stay where they are;
    ``free_cpus`` is without theirs. ``group``: its name, so that different groups begin at
    different nodes.
    """
    placed = placed or {}
    order = _rotated(sorted(nodes), by=group)
    free = {node.id: node.free_cpus for node in order}
    members = Counter({node.id: 0 for node in order})
    members.update(node for node in placed.values() if node in members)
    result: dict[int, str | None] = {}
    for member in range(count):
        if member in placed:
            result[member] = placed[member]
            continue
        # `min` takes the first of those that are equal.
        roomy = (node.id for node in order if free[node.id] + _EPSILON >= cpus)
        chosen = min(roomy, key=members.__getitem__, default=None)
        result[member] = chosen
        if chosen is not None:
            members[chosen] += 1
            free[chosen] -= cpus
    return result


def _rotated(nodes: Sequence[Node], *, by: str) -> Sequence[Node]:
    # Not `hash`, which differs between processes.
    first = zlib.crc32(by.encode()) % max(len(nodes), 1)
    return [*nodes[first:], *nodes[:first]]
