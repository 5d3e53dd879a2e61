"""The choices of a process that creates actors: even while those it created are still starting."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from runtime.placement.spread import Node, spread

STARTING_MAX_S: Final = 60.0
"""A created actor counts on the node that was chosen for this long, until it runs."""


class ClusterView(NamedTuple):
    """What the cluster looks like now."""

    nodes: Sequence[Node]
    running: Mapping[str, str]
    """Node of every named actor that runs."""


class _Choice(NamedTuple):
    node: str
    cpus: float
    at_s: float


class Placements:
    """Chooses nodes for actors named ``GROUP-NUMBER``, with a memory of those that don't run yet.

    ``clock``: seconds, monotonic.
    """

    def __init__(self, look: Callable[[], ClusterView], *, clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._starting: dict[str, _Choice] = {}

    def choose(self, name: str, *, cpus: float, group_size: int) -> str | None:
        """The node for the actor ``name``, which is created now; None: no node has room."""
        nodes, running = self._look()
        self._forget(nodes, running)
        group, _, number = name.rpartition("-")
        named = {f"{group}-{member}": member for member in range(group_size)}
        placed = {
            named[one]: node
            for one, node in {**self._nodes_of_starting(), **running}.items()
            if one in named and one != name
        }
        member = int(number)
        free = self._without_starting(nodes)
        node = spread(group_size, free, cpus=cpus, placed=placed, group=group)[member]
        if node is not None:
            self._starting[name] = _Choice(node, cpus, self._clock())
        return node

    def _forget(self, nodes: Sequence[Node], running: Mapping[str, str]) -> None:
        known = {node.id for node in nodes}
        oldest_s = self._clock() - STARTING_MAX_S
        self._starting = {
            name: choice
            for name, choice in self._starting.items()
            if name not in running and choice.node in known and choice.at_s > oldest_s
        }

    def _nodes_of_starting(self) -> dict[str, str]:
        return {name: choice.node for name, choice in self._starting.items()}

    def _without_starting(self, nodes: Sequence[Node]) -> list[Node]:
        """Ray reports what an actor reserves with a delay, so theirs may look free."""
        reserved: defaultdict[str, float] = defaultdict(float)
        for choice in self._starting.values():
            reserved[choice.node] += choice.cpus
        return [Node(node.id, node.free_cpus - reserved[node.id]) for node in nodes]
