"""A shard knows whether it starts in an upgrade, where there is time, or in place of a lost one."""

import pytest
import ray

from actors.shard_actor import other_versions

_ACTORS = "SERVE_DEPLOYMENT_ACTOR::api::Ingress"


def running(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = [{"namespace": "serve", "name": name} for name in names]
    monkeypatch.setattr(ray.util, "list_named_actors", lambda *, all_namespaces: found)


def test_shards_of_another_version_run_while_a_deployment_is_upgraded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running(monkeypatch, f"{_ACTORS}::v1::shard-0", f"{_ACTORS}::v2::shard-1", "SERVE_CONTROLLER")

    assert other_versions(f"{_ACTORS}::v2::shard-0") == [f"{_ACTORS}::v1::shard-0"]


def test_a_shard_that_replaces_a_lost_one_sees_its_own_version_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running(monkeypatch, f"{_ACTORS}::v2::shard-1", f"{_ACTORS}s::v1::shard-0", "SERVE_CONTROLLER")

    assert other_versions(f"{_ACTORS}::v2::shard-0") == []


@pytest.mark.parametrize("name", ["", "shard-0", "::shard-0"])
def test_a_shard_with_another_kind_of_name_knows_of_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, f"{_ACTORS}::v1::shard-0")

    assert other_versions(name) == []


def test_a_shard_starts_although_ray_can_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*, all_namespaces: bool) -> None:
        raise ray.exceptions.RaySystemError(f"no answer ({all_namespaces})")

    monkeypatch.setattr(ray.util, "list_named_actors", unreachable)

    assert other_versions(f"{_ACTORS}::v2::shard-0") == []
