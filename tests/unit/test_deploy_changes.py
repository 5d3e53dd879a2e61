"""What a deployment changes: compared with what runs, and no secret shown."""

from collections.abc import Mapping

import msgspec

from deploy.cluster.changes import Changes, compare
from deploy.cluster.configuration import from_settings, parse
from deploy.cluster.state import ApplicationState
from runtime.settings import Settings
from tests.support.clusters import (
    API_CONFIG,
    PROJECTIONS_CONFIG,
    application,
    changed,
    cluster_state,
    config,
    node,
)

RUNNING = (application(API_CONFIG), application(PROJECTIONS_CONFIG))


def changes_of(
    *applications: Mapping[str, object], running: tuple[ApplicationState, ...]
) -> Changes:
    state = cluster_state(node(0, 4), applications=running)
    return compare(parse(config(*applications), "serve.yaml"), state)


def shown(changes: Changes) -> list[str]:
    return [f"{one.application} {one.name}: {one.before} → {one.after}" for one in changes.lines]


def test_on_an_empty_cluster_both_are_new() -> None:
    changes = changes_of(running=())
    assert changes.applications == {"api", "projections"}
    assert [one.after for one in changes.lines] == ["new", "new"]


def test_the_same_configuration_changes_nothing() -> None:
    assert changes_of(running=RUNNING).is_empty


def test_settings_and_options_are_listed_with_both_values() -> None:
    api = {
        **changed(API_CONFIG, shard_count=6),
        "deployments": [
            {"name": "Ingress", "num_replicas": 4, "ray_actor_options": {"num_cpus": 1}}
        ],
    }
    changes = changes_of(api, PROJECTIONS_CONFIG, running=RUNNING)
    assert changes.applications == changes.restarted == {"api"}
    assert shown(changes) == [
        "api shard_count: 4 → 6",
        "api Ingress.num_replicas: 3 → 4",
        "api Ingress.ray_actor_options.num_cpus: (default) → 1",
    ]


def test_more_replicas_alone_start_no_new_version() -> None:
    api = {**API_CONFIG, "deployments": [{"name": "Ingress", "num_replicas": 4}]}
    changes = changes_of(api, PROJECTIONS_CONFIG, running=RUNNING)
    assert changes.applications == {"api"}
    assert changes.restarted == frozenset()


def test_a_setting_that_is_no_longer_named_is_a_change() -> None:
    api = {**API_CONFIG, "args": {"shard_count": 4, "revision": "1"}}
    changes = changes_of(api, PROJECTIONS_CONFIG, running=RUNNING)
    assert shown(changes) == ["api shard_num_cpus: 0.5 → (default)"]


def test_secrets_are_compared_and_not_shown() -> None:
    before = application(changed(API_CONFIG, database_url="postgresql://wallet:hunter2@db/wallet"))
    api = changed(API_CONFIG, database_url="postgresql://wallet:hunter3@db/wallet")
    changes = changes_of(api, PROJECTIONS_CONFIG, running=(before, RUNNING[1]))
    assert shown(changes) == ["api database_url: (not shown) → (not shown)"]


def test_an_application_that_the_file_leaves_out_would_be_removed() -> None:
    changes = changes_of(API_CONFIG, running=RUNNING)
    assert changes.removed == {"projections"}
    assert not changes.is_empty


def test_serve_keeps_applications_that_no_file_has_deployed() -> None:
    shell = msgspec.structs.replace(RUNNING[1], config=None)
    assert changes_of(API_CONFIG, running=(RUNNING[0], shell)).removed == frozenset()


def test_a_failed_application_is_deployed_again() -> None:
    failed = application(API_CONFIG, status="DEPLOY_FAILED")
    changes = changes_of(running=(failed, RUNNING[1]))
    assert changes.applications == {"api"}


def test_a_file_over_a_shell_s_settings_compares_what_it_names() -> None:
    settings = Settings(shard_count=2, shard_num_cpus=0.5).model_dump(mode="json")
    shell = msgspec.structs.replace(
        RUNNING[0], config=None, settings=settings, replicas={"Ingress": 2}
    )
    changes = changes_of(running=(shell, RUNNING[1]))
    assert "api shard_count: 2 → 4" in shown(changes)
    assert "api Ingress.num_replicas: 2 → 3" in shown(changes)
    assert not any("shard_num_cpus" in line for line in shown(changes))


def test_a_shell_s_settings_over_a_shell_s_settings() -> None:
    before = Settings(shard_count=2)
    running = msgspec.structs.replace(
        RUNNING[0], config=None, settings=before.model_dump(mode="json")
    )
    after = before.model_copy(update={"shard_count": 3, "database_url": "postgresql://x:hunter2@y"})
    changes = compare(
        from_settings(after, ["api"]), cluster_state(node(0, 4), applications=[running])
    )
    assert shown(changes) == [
        "api database_url: (not shown) → (not shown)",
        "api shard_count: 2 → 3",
    ]
    assert changes.removed == frozenset()


def test_a_shell_s_settings_restart_an_application_even_unchanged() -> None:
    settings = Settings()
    running = msgspec.structs.replace(
        RUNNING[0], config=None, settings=settings.model_dump(mode="json")
    )
    state = cluster_state(node(0, 4), applications=[running])
    changes = compare(from_settings(settings, ["api"]), state)
    assert changes.lines == []
    assert changes.applications == {"api"}
