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


def secrets_of(home: StateDirectory) -> set[str]:
    """Everything secret that this stack knows."""
    stack = home.load()
    kept = {path.read_text(encoding="ascii").strip() for path in home.secrets.iterdir()}
    return kept | {
        found for url in (stack.database_url, stack.nats_url) for found in _PASSWORD.findall(url)
    }


def logs_of(home: StateDirectory) -> Iterator[Path]:
    yield from (path for path in home.logs.iterdir() if path.is_file())
    yield from (path for path in (home.logs / "ray").resolve().rglob("*") if path.is_file())


def test_no_log_has_a_secret_or_a_key(service: RunningService, api: Api) -> None:
    if service.home is None:
        pytest.skip("only a local stack tells where its logs are")
    key = {"Authorization": f"Bearer {_KEY}"}
    for path in ("/v1/wallet", "/v1/nowhere"):
        api.post(path, {"reference_id": 1}, headers=key)
    secrets = secrets_of(service.home) | {_KEY}
    assert len(secrets) >= 4
    files = list(logs_of(service.home))
    assert len(files) > 10
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        assert not [secret[:4] for secret in secrets if secret in text], file
