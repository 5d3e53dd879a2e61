"""The environment of Ray's processes: complete, private to the stack, in Ray's spelling."""

from pathlib import Path

import pytest
import ray

from deploy.local import ray_environment
from deploy.local.ray_environment import PORTS, STACK_VARIABLE, serve_environment
from deploy.local.state_dir import Stack, StateDirectory
from runtime.settings import Settings

# A Unix socket's path has at most 107 bytes; HAProxy binds a name with a suffix, then renames it.
SOCKET_PATH_MAX = 107 - len(".1234567.tmp")
NODE_ID_LENGTH = 56


@pytest.fixture
def state_dir(tmp_path: Path) -> StateDirectory:
    state_dir = StateDirectory(tmp_path)
    state_dir.create()
    state_dir.save(
        Stack(
            ports={name: 20_000 + number for number, name in enumerate(PORTS)},
            sockets=Path("/tmp/wallet-12345678"),
        )
    )
    return state_dir


@pytest.fixture(autouse=True)
def _haproxy_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_environment, "haproxy_unavailable_reason", lambda: None)
    monkeypatch.setattr(ray_environment, "_haproxy_binary", lambda: "/bin/haproxy")


def test_replicas_read_every_setting_as_this_process_did(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url="postgresql://a", nats_url="nats://b", shard_count=7)

    environment = serve_environment(settings, state_dir)

    for name in list(environment):
        if name.startswith("WALLET_"):
            monkeypatch.setenv(name, environment[name])
    assert Settings() == settings


def test_every_serve_variable_is_one_that_ray_serve_reads(state_dir: StateDirectory) -> None:
    folder = Path(ray.__file__).parent / "serve"
    source = "".join(path.read_text() for path in folder.rglob("*.py"))

    for name in serve_environment(Settings(), state_dir):
        if name.startswith("RAY_SERVE_"):
            assert f'"{name}"' in source, name


def test_haproxys_socket_paths_are_short_enough(state_dir: StateDirectory) -> None:
    environment = serve_environment(Settings(), state_dir)

    path = Path(environment["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    with_node = len(str(path)) + NODE_ID_LENGTH + 1

    assert with_node <= SOCKET_PATH_MAX


def test_two_stacks_share_no_port_and_no_path(state_dir: StateDirectory, tmp_path: Path) -> None:
    other = StateDirectory(tmp_path / "other")
    other.create()
    other.save(
        Stack(
            ports={name: 21_000 + number for number, name in enumerate(PORTS)},
            sockets=Path("/tmp/wallet-87654321"),
        )
    )
    ours, theirs = (serve_environment(Settings(), one) for one in (state_dir, other))

    for name, value in ours.items():
        if "PORT" in name.split("_") and name.startswith("RAY_"):
            assert value != theirs[name], name
        if value.startswith("/tmp/wallet-"):
            assert value != theirs[name], name
    assert ours[STACK_VARIABLE] != theirs[STACK_VARIABLE]


def test_another_cluster_of_the_shell_is_forgotten(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    environment = serve_environment(Settings(), state_dir)

    assert environment["RAY_ADDRESS"] == f"127.0.0.1:{state_dir.load().ports['ray']}"
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in environment


def test_the_token_of_ray_is_private_and_stays_the_same(state_dir: StateDirectory) -> None:
    first = Path(serve_environment(Settings(), state_dir)["RAY_AUTH_TOKEN_PATH"])
    token = first.read_text()

    second = Path(serve_environment(Settings(), state_dir)["RAY_AUTH_TOKEN_PATH"])

    assert second.read_text() == token
    assert first.stat().st_mode & 0o077 == 0


def test_without_haproxy_nothing_of_it_is_set(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ray_environment, "haproxy_unavailable_reason", lambda: "not on this platform"
    )

    environment = serve_environment(Settings(), state_dir)

    assert not [name for name in environment if "HAPROXY" in name or "HA_PROXY" in name]
    assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_haproxy_gives_up_after_the_service_itself_would(state_dir: StateDirectory) -> None:
    settings = Settings(request_timeout_s=42.5)

    environment = serve_environment(settings, state_dir)

    assert int(environment["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"]) > settings.request_timeout_s
