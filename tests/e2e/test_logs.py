"""No secret in any log of the running stack: ours, Ray's, Serve's, the servers'."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.state_dir import StateDirectory
from tests.e2e.api import Api
from tests.support.running_service import RunningService

_KEY = "wk_e2e_b7f1a0c93d5e4826"
_PASSWORD = re.compile(r"://[^:@/]*:?([^:@/]{8,})@")


def secrets_of(state_dir: StateDirectory) -> set[str]:
    """Everything secret that this stack knows."""
    stack = state_dir.load()
    kept = {path.read_text(encoding="ascii").strip() for path in state_dir.secrets.iterdir()}
    return kept | {
        found for url in (stack.database_url, stack.nats_url) for found in _PASSWORD.findall(url)
    }


def logs_of(state_dir: StateDirectory) -> Iterator[Path]:
    yield from (path for path in state_dir.logs.iterdir() if path.is_file())
    yield from (path for path in (state_dir.logs / "ray").resolve().rglob("*") if path.is_file())


def test_no_log_has_a_secret_or_a_key(service: RunningService, api: Api) -> None:
    if service.state_dir is None:
        pytest.skip("the logs are accessible on a local stack only")
    key = {"Authorization": f"Bearer {_KEY}"}
    for path in ("/v1/wallet", "/v1/nowhere"):
        api.post(path, {"reference_id": 1}, headers=key)
    secrets = secrets_of(service.state_dir) | {_KEY}
    assert len(secrets) >= 4
    files = list(logs_of(service.state_dir))
    assert len(files) > 10
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        assert not [secret[:4] for secret in secrets if secret in text], file
