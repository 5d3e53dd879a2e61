"""What Serve's API shows of an application's settings."""

import pytest

from runtime.settings import Settings
from serve_app.arguments import SECRETS, ApplicationArguments

FROM_ENVIRONMENT = "postgresql://wallet:hunter2@db/wallet"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_DATABASE_URL", FROM_ENVIRONMENT)
    monkeypatch.setenv("WALLET_NATS_URL", "nats://token@nats:4222")


def test_addresses_of_the_environment_are_not_handed_to_serve() -> None:
    arguments = ApplicationArguments.model_validate({"shard_count": 3, "revision": "7"})
    shown = arguments.without_inherited_secrets()
    assert SECRETS.isdisjoint(shown)
    assert "hunter2" not in str(shown)


def test_a_shard_reads_them_from_its_own_environment() -> None:
    arguments = ApplicationArguments.model_validate({"shard_count": 3, "revision": "7"})
    found = Settings.model_validate(arguments.without_inherited_secrets())
    assert found == arguments.settings()
    assert found.database_url == FROM_ENVIRONMENT


def test_an_address_in_the_arguments_overrides_that_of_the_node() -> None:
    other = "postgresql://wallet@other/wallet"
    arguments = ApplicationArguments.model_validate({"database_url": other})
    assert arguments.without_inherited_secrets()["database_url"] == other
