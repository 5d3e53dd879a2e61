"""Options of an actor that Serve's controller creates: the node chosen, or left to Ray."""

from typing import Any

import pytest
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.shard_actor import ShardActor, SpreadShardActor
from projections.projection_actor import ProjectionActor, SpreadProjectionActor
from runtime.placement import ray_options
from runtime.placement.placements import ClusterView, Placements
from runtime.placement.ray_options import GROUP_SIZE, with_node
from runtime.placement.spread import Node
from runtime.settings import Settings
from serve_app import deployment

NODE = "a" * 56
OPTIONS: dict[str, Any] = {
    "name": "SERVE_DEPLOYMENT_ACTOR::api::Ingress::v1::shard-0",
    "num_cpus": 0.5,
    "scheduling_strategy": "SPREAD",
    "lifetime": "detached",
    GROUP_SIZE: 2,
}


def use(monkeypatch: pytest.MonkeyPatch, *nodes: Node) -> None:
    view = ClusterView(list(nodes), {})
    monkeypatch.setattr(ray_options, "_placements", Placements(lambda: view, clock=lambda: 0.0))


def test_the_chosen_node_is_a_soft_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Node(NODE, 4))
    options = with_node(OPTIONS)
    strategy = options.pop("scheduling_strategy")
    assert isinstance(strategy, NodeAffinitySchedulingStrategy)
    assert (strategy.node_id, strategy.soft) == (NODE, True)
    assert options == {"name": OPTIONS["name"], "num_cpus": 0.5, "lifetime": "detached"}
    assert GROUP_SIZE in OPTIONS, "the deployment's own options stay as they are"


def test_without_room_ray_chooses_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Node(NODE, 0.2))
    assert with_node(OPTIONS)["scheduling_strategy"] == "SPREAD"


def test_a_cluster_that_can_not_be_read_leaves_it_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> ClusterView:
        raise ConnectionError("the head restarts")

    monkeypatch.setattr(ray_options, "_placements", Placements(fail, clock=lambda: 0.0))
    options = with_node(OPTIONS)
    assert options["scheduling_strategy"] == "SPREAD"
    assert GROUP_SIZE not in options


@pytest.mark.parametrize(
    ("spread", "actor"),
    [(SpreadShardActor, ShardActor), (SpreadProjectionActor, ProjectionActor)],
)
def test_serve_s_controller_creates_the_same_actor_class(
    monkeypatch: pytest.MonkeyPatch, spread: Any, actor: Any
) -> None:
    use(monkeypatch, Node(NODE, 4))
    assert spread.__ray_actor_class__ is actor.__ray_actor_class__
    assert hasattr(spread.options(**OPTIONS), "remote")


@pytest.mark.parametrize(
    ("nodes", "replicas", "cap"), [(1, 3, None), (2, 3, 2), (3, 3, 1), (3, 4, 2), (5, 2, 1)]
)
def test_replicas_have_a_cap_per_node_unless_there_is_one_node(
    monkeypatch: pytest.MonkeyPatch, nodes: int, replicas: int, cap: int | None
) -> None:
    monkeypatch.setattr(deployment, "nodes_accepting_actors", lambda: nodes)
    built: Any = deployment.api_application(Settings(ingress_replicas=replicas))
    assert built._bound_deployment._replica_config.max_replicas_per_node == cap


def test_the_group_of_a_shard_is_the_shards_of_its_version() -> None:
    built: Any = deployment.api_application(Settings(shard_count=3))
    actors = built._bound_deployment._deployment_config.deployment_actors
    assert [one.name for one in actors] == ["shard-0", "shard-1", "shard-2"]
    assert {one.actor_options[GROUP_SIZE] for one in actors} == {3}
