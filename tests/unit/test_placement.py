"""Placement: even over the nodes, stable while members start, and never waiting for a cap."""

from collections import Counter

import pytest

from runtime.placement.placements import STARTING_MAX_S, ClusterView, Placements
from runtime.placement.spread import Node, per_node_max, spread


def cluster(*free_cpus: float) -> list[Node]:
    return [Node(f"node-{number}", free) for number, free in enumerate(free_cpus)]


def counts(placement: dict[int, str | None], nodes: list[Node]) -> list[int]:
    found = Counter(placement.values())
    return [found[node.id] for node in nodes]


@pytest.mark.parametrize("nodes", range(1, 8))
@pytest.mark.parametrize("members", range(1, 25))
def test_nodes_differ_by_at_most_one_member(nodes: int, members: int) -> None:
    found = cluster(*[16.0] * nodes)
    for group in ("a", "b", "c"):
        each = counts(spread(members, found, cpus=0.5, group=group), found)
        assert sum(each) == members
        assert max(each) - min(each) <= 1
        assert max(each) == per_node_max(members, nodes)


@pytest.mark.parametrize("started", range(5))
def test_every_member_computes_the_same_while_others_start(started: int) -> None:
    """Those that started are known by their nodes, and their CPUs are no longer free."""
    nodes = cluster(4, 4, 4)
    first = spread(5, nodes, cpus=0.5, group="g")
    placed = {member: node for member, node in first.items() if member < started and node}
    running = Counter(placed.values())
    now = [Node(node.id, node.free_cpus - 0.5 * running[node.id]) for node in nodes]

    assert spread(5, now, cpus=0.5, placed=placed, group="g") == first


def test_a_leased_but_unknown_member_changes_nothing() -> None:
    nodes = cluster(4, 4, 4)
    first = spread(5, nodes, cpus=0.5, group="g")
    leased = [Node(nodes[0].id, 3.5), nodes[1], Node(nodes[2].id, 3.0)]

    assert spread(5, leased, cpus=0.5, group="g") == first


def test_members_of_a_lost_node_go_where_fewest_are() -> None:
    nodes = cluster(4, 4, 4)
    before = spread(6, nodes, cpus=0.5)
    lost = nodes[1].id
    remaining = [nodes[0], nodes[2]]
    placed = {member: node for member, node in before.items() if node and node != lost}

    after = spread(6, remaining, cpus=0.5, placed=placed)

    assert counts(after, remaining) == [3, 3]
    assert {member: after[member] for member in placed} == placed


def test_a_node_that_came_back_gets_the_next_members() -> None:
    nodes = cluster(4, 4, 4)
    placed = {0: "node-0", 1: "node-0", 2: "node-1"}
    assert spread(4, nodes, cpus=0.5, placed=placed)[3] == "node-2"


def test_a_node_without_room_is_left_out() -> None:
    nodes = cluster(0.4, 4, 4)
    assert counts(spread(4, nodes, cpus=0.5), nodes) == [0, 2, 2]


def test_what_fits_exactly_fits() -> None:
    nodes = cluster(0.3, 0.3)
    assert counts(spread(6, nodes, cpus=0.1), nodes) == [3, 3]


def test_members_without_room_have_no_node_and_the_others_do() -> None:
    nodes = cluster(0.5, 1.0)
    placement = spread(4, nodes, cpus=0.5)
    assert counts(placement, nodes) == [1, 2]
    assert placement[3] is None


def test_without_nodes_nobody_has_one() -> None:
    assert spread(2, [], cpus=0.5) == {0: None, 1: None}


def test_a_member_on_a_node_that_left_stays_named_and_counts_nowhere() -> None:
    placement = spread(2, cluster(4), cpus=0.5, placed={0: "draining"})
    assert placement == {0: "draining", 1: "node-0"}


def test_groups_begin_at_different_nodes() -> None:
    nodes = cluster(4, 4, 4)
    first = {spread(1, nodes, cpus=0.5, group=f"version-{number}")[0] for number in range(20)}
    assert first == {node.id for node in nodes}


def test_the_order_in_which_nodes_are_listed_does_not_matter() -> None:
    nodes = cluster(4, 4, 4)
    assert spread(5, nodes[::-1], cpus=0.5, group="g") == spread(5, nodes, cpus=0.5, group="g")


class FakeCluster:
    """Nodes and running actors, as the controller sees them. Actors run once `run` is called."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = list(nodes)
        self.running: dict[str, str] = {}
        self.now_s = 0.0
        self.placements = Placements(
            lambda: ClusterView(self.nodes, self.running), clock=lambda: self.now_s
        )

    def create(self, *members: int, version: str = "v1", size: int = 4) -> list[str | None]:
        return [
            self.placements.choose(f"api#{version}::shard-{member}", cpus=0.5, group_size=size)
            for member in members
        ]

    def run(self, *members: int, version: str = "v1", size: int = 4) -> list[str | None]:
        nodes = self.create(*members, version=version, size=size)
        for member, node in zip(members, nodes, strict=True):
            if node is not None:
                self.running[f"api#{version}::shard-{member}"] = node
        return nodes

    def lose(self, node: str) -> list[int]:
        self.nodes = [one for one in self.nodes if one.id != node]
        lost = [name for name, at in self.running.items() if at == node]
        for name in lost:
            del self.running[name]
        return [int(name.rpartition("-")[2]) for name in lost]

    def counts(self, version: str = "v1") -> list[int]:
        found = Counter(node for name, node in self.running.items() if version in name)
        return sorted(found[node.id] for node in self.nodes)


@pytest.fixture
def three() -> FakeCluster:
    return FakeCluster(*cluster(4, 4, 4))


def test_shards_that_start_together_are_spread(three: FakeCluster) -> None:
    three.run(0, 1, 2, 3)
    assert three.counts() == [1, 1, 2]


def test_the_next_version_is_spread_by_itself_beside_the_first(three: FakeCluster) -> None:
    three.run(0, 1, 2, 3)
    three.run(0, 1, 2, 3, 4, version="v2", size=5)
    assert three.counts("v2") == [1, 2, 2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_lost_shards_are_spread_in_whatever_order_they_return(
    three: FakeCluster, order: tuple[int, int]
) -> None:
    three.run(*range(6), size=6)
    lost = three.lose("node-1")
    assert len(lost) == 2
    three.create(lost[order[0]], size=6)
    three.run(lost[order[1]], size=6)
    three.run(lost[order[0]], size=6)
    assert three.counts() == [3, 3]


def test_a_node_that_came_back_gets_its_share_of_the_next_version(three: FakeCluster) -> None:
    three.run(0, 1, 2, 3)
    three.run(*three.lose("node-0"))
    assert three.counts() == [2, 2]
    three.nodes.append(Node("node-3", 4))
    three.run(0, 1, 2, 3, version="v2")
    assert three.counts("v2") == [1, 1, 2]


def test_a_shard_that_is_created_again_does_not_count_where_it_was(three: FakeCluster) -> None:
    first = three.run(0, 1, 2, size=3)
    assert three.run(1, size=3) == [first[1]]


def test_a_shard_that_never_ran_counts_for_a_minute(three: FakeCluster) -> None:
    first = three.create(0, 1, 2, size=3)
    three.now_s = STARTING_MAX_S / 2
    assert three.create(0, size=3) == first[:1]
    three.now_s = 2 * STARTING_MAX_S
    three.nodes = [Node(node.id, 0.5) for node in three.nodes]
    assert sorted(map(str, three.create(0, 1, 2, size=3))) == ["node-0", "node-1", "node-2"]


def test_room_that_a_starting_shard_was_given_is_not_given_twice() -> None:
    tight = FakeCluster(Node("node-0", 0.5), Node("node-1", 1.0))
    assert sorted(map(str, tight.create(0, 1, 2, 3))) == ["None", "node-0", "node-1", "node-1"]
