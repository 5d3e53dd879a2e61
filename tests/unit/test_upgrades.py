"""How an upgrade replaces replicas and shards."""

from ray import cloudpickle

from runtime.settings import Settings
from serve_app.deployment import _with_surge, api_application

SETTINGS = Settings(_env_file=None, shard_count=3)


def test_an_upgrade_adds_replicas_before_it_stops_any() -> None:
    deployment = api_application(SETTINGS)._bound_deployment
    assert deployment._deployment_config.max_surge_percent == 25


def test_an_upgrade_adds_none_where_nodes_have_a_limit() -> None:
    deployment = api_application(SETTINGS)._bound_deployment
    limited = deployment.options(max_replicas_per_node=2, max_surge_percent=0)
    assert _with_surge(limited)._deployment_config.max_surge_percent == 0


def test_what_a_shard_is_made_of_names_no_class_of_ours() -> None:
    # Its process would load the class's module before its turn. See `runtime.start_turns`.
    deployment = api_application(SETTINGS)._bound_deployment
    for actor in deployment._deployment_config.deployment_actors:
        made_of = cloudpickle.dumps(actor.init_kwargs)
        assert b"runtime" not in made_of
        assert Settings.model_validate(actor.init_kwargs["settings"]) == SETTINGS
