"""Room on the nodes: refused before, with the node and the share that it lacks."""

from deploy.cluster.demand import SHARD_MEMORY_BYTES, Demand
from deploy.cluster.room import find_room, shortage
from tests.support.clusters import cluster_state, node, replica, shard

DEMAND = Demand(shards=4, shard_cpus=0.5, replicas=3, replica_cpus=0.01, projections=2)


def test_an_empty_cluster_of_three_has_room_and_is_even() -> None:
    room = find_room(cluster_state(node(0, 4), node(1, 4), node(2, 4)), DEMAND)
    assert room.problems == []
    assert sorted(room.placement["shard"].values()) == [1, 1, 2]
    assert list(room.placement["ingress"].values()) == [1, 1, 1]
    assert sum(room.placement["projection"].values()) == 2


def test_new_shards_need_room_beside_the_old_ones() -> None:
    """Two nodes of two CPUs run four shards: half of what is needed for a moment is there."""
    state = cluster_state(
        node(0, 0.4, cpus=1.5),
        node(1, 0.9, cpus=1.5),
        actors=[shard(number, number % 2) for number in range(4)],
    )
    (problem,) = find_room(state, DEMAND).problems
    assert "3 of 4 new shards" in problem
    assert "needs 0.5 CPUs, 0.1 more than 10.0.0.0 has free" in problem
    assert "10.0.0.0 0.4 of 1.5" in problem


def test_what_is_not_started_anew_needs_no_room() -> None:
    demand = DEMAND.starting({"projections"})
    assert (demand.shards, demand.replicas, demand.projections) == (0, 3, 2)
    assert find_room(cluster_state(node(0, 0.05)), demand).problems == []
    assert find_room(cluster_state(node(0, 0.0)), Demand()).problems == []


def test_a_replica_gets_the_cpus_of_the_one_before() -> None:
    demand = Demand(replicas=2, replica_cpus=1.0)
    full = cluster_state(node(0, 0), node(1, 0), actors=[replica("a", 0), replica("b", 1)])
    assert find_room(full, demand).problems == []
    (problem,) = find_room(
        full, Demand(replicas=3, replica_cpus=1.0, replicas_per_node_max=2)
    ).problems
    assert "1 of 3 new ingress replicas" in problem


def test_replicas_beyond_the_configured_cap_would_wait() -> None:
    demand = Demand(replicas=5, replica_cpus=0.01, replicas_per_node_max=2)
    (problem,) = find_room(cluster_state(node(0, 4), node(1, 4)), demand).problems
    assert problem.startswith("5 ingress replicas don't fit on 2 nodes with at most 2 each: 1")


def test_replicas_that_are_no_multiple_of_the_nodes_are_a_note() -> None:
    demand = Demand(replicas=4, replica_cpus=0.01)
    room = find_room(cluster_state(node(0, 4), node(1, 4), node(2, 4)), demand)
    assert room.problems == []
    assert "no multiple of 3 nodes" in room.notes[0]


def test_a_head_without_cpus_is_no_node_for_the_service() -> None:
    room = find_room(cluster_state(node(0, 0, cpus=0), node(1, 4)), DEMAND)
    assert room.problems == []
    assert room.placement["shard"] == {"10.0.0.1": 4}


def test_a_cluster_without_cpus_is_refused() -> None:
    (problem,) = find_room(cluster_state(node(0, 0, cpus=0)), DEMAND).problems
    assert "no node with CPUs" in problem


def test_missing_memory_names_the_node_and_the_share() -> None:
    demand = Demand(shards=4, shard_cpus=0.5)
    state = cluster_state(node(0, 4, memory=SHARD_MEMORY_BYTES), node(1, 4, memory=10**10))
    (problem,) = find_room(state, demand).problems
    assert problem.startswith("10.0.0.0 has 130 MB of memory available and needs 260 MB")
    assert "2 shards: 130 MB are missing" in problem


def test_unknown_memory_is_no_problem() -> None:
    demand = Demand(shards=4, shard_cpus=0.5)
    assert find_room(cluster_state(node(0, 4)), demand).problems == []


def test_a_shortage_is_none_where_one_node_has_room() -> None:
    assert shortage("shard-1", 0.5, [node(0, 0), node(1, 0.5)]) is None
    text = shortage("shard-1", 0.5, [node(0, 0), node(1, 0.25)])
    assert text is not None
    assert "0.25 more than 10.0.0.1 has free" in text
