"""Without authentication the service binds to loopback only, unless explicitly allowed."""

import pytest

from deploy.local.errors import StackError
from deploy.local.serve_deployer import deploy
from runtime.settings import Settings
from serve_app.auth.bind_policy import (
    InsecureBindAddress,
    bind_policy_error,
    check_bind_policy,
    is_exposed_unauthenticated,
)

LOOPBACK = ["127.0.0.1", "127.5.5.5", "::1", "localhost"]
BEYOND = ["0.0.0.0", "::", "192.0.2.2", "fd00::2", "wallet.example", "", None]


@pytest.mark.parametrize("host", LOOPBACK)
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert bind_policy_error(Settings(), host) is None
    assert not is_exposed_unauthenticated(Settings(), host)


@pytest.mark.parametrize("host", BEYOND)
def test_beyond_loopback_it_refuses_and_says_what_to_do(host: str | None) -> None:
    refusal = bind_policy_error(Settings(), host)

    assert refusal is not None
    assert "WALLET_AUTH=required" in refusal
    assert "WALLET_ALLOW_UNAUTHENTICATED_REMOTE=true" in refusal
    with pytest.raises(InsecureBindAddress, match="WALLET_AUTH=required"):
        check_bind_policy(Settings(), host)


@pytest.mark.parametrize("host", BEYOND)
def test_with_keys_it_listens_anywhere(host: str | None) -> None:
    check_bind_policy(Settings(auth="required"), host)
    assert not is_exposed_unauthenticated(Settings(auth="required"), host)


@pytest.mark.parametrize("host", BEYOND)
def test_if_allowed_it_listens_anywhere_and_is_marked_as_open(host: str | None) -> None:
    settings = Settings(allow_unauthenticated_remote=True)

    check_bind_policy(settings, host)
    assert is_exposed_unauthenticated(settings, host)


def test_it_is_not_deployed_where_remote_clients_could_connect() -> None:
    with pytest.raises(StackError, match="WALLET_AUTH=required"):
        deploy(Settings(http_host="0.0.0.0"), "127.0.0.1:1", ("api",))
