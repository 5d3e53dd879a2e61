"""`wallet logs` shows what the service's own processes logged, and finds a request."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.log_viewer import files_of
from deploy.cli.main import app
from deploy.local.state_dir import StateDirectory


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    """With the logs of NATS, of an ingress replica and of a shard."""
    monkeypatch.setenv("WALLET_HOME", str(tmp_path))
    serve = tmp_path / "logs" / "ray" / "serve"
    serve.mkdir(parents=True)
    (tmp_path / "logs" / "nats.log").write_text("ready\n")
    (serve / "replica_api_Ingress_x.log").write_text("")
    (serve / "controller_1.log").write_text("deployed\n")
    workers = {
        "worker-ab-01000000-11.out": ":job_id:01\n:actor_name:ServeReplica:api:Ingress\n"
        '{"event": "request failed", "request_id": "r-1"}\n',
        "worker-cd-01000000-12.out": ":actor_name:ShardActor\n"
        '{"event": "stalled", "request_ids": ["r-1", "r-2"]}\n',
        "worker-ef-01000000-13.out": "",
    }
    for name, text in workers.items():
        (serve.parent / name).write_text(text)
    return StateDirectory(tmp_path)


def test_the_service_s_own_logs_are_shown_by_process(state_dir: StateDirectory) -> None:
    assert [name for name, _ in files_of(state_dir, None)] == [
        "nats",
        "service/ServeReplica:api:Ingress-11",
        "service/ShardActor-12",
        "service/worker-13",
        "serve/controller_1",
    ]
    assert [name for name, _ in files_of(state_dir, "serve")] == ["serve/controller_1"]


def test_a_request_is_found_in_every_log(state_dir: StateDirectory) -> None:
    del state_dir
    result = CliRunner().invoke(app, ["logs", "--request", "r-1"])
    assert [line.partition(" | ")[0] for line in result.stdout.splitlines()] == [
        "service/ServeReplica:api:Ingress-11",
        "service/ShardActor-12",
    ]


def test_a_request_without_a_line_is_told(state_dir: StateDirectory) -> None:
    del state_dir
    result = CliRunner().invoke(app, ["logs", "--request", "r-9"])
    assert result.exit_code == 1
    assert "No line of these logs has this request id." in result.stderr
