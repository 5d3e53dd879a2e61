"""A misspelt setting is told, and nothing else is."""

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from runtime.renamed_settings import RENAMED
from runtime.settings import Settings
from runtime.unknown_variables import unknown_variables
from runtime.version import VERSION


def test_a_misspelt_setting_is_told_with_the_right_name() -> None:
    assert unknown_variables({"WALLET_SHARDCOUNT": "3", "PATH": "/bin"}) == [
        "WALLET_SHARDCOUNT is not a setting, and is ignored. Did you mean WALLET_SHARD_COUNT?"
    ]


@pytest.mark.parametrize("name", ["WALLET_SHARDS", "wallet_shardcount", "WALLET_HTTPPORT"])
def test_near_names_get_a_suggestion(name: str) -> None:
    (sentence,) = unknown_variables({name: "1"})
    assert "Did you mean WALLET_" in sentence


def test_a_variable_like_no_setting_is_told_without_a_guess() -> None:
    assert unknown_variables({"WALLET_XQZW": ""}) == [
        "WALLET_XQZW is not a setting, and is ignored."
    ]


def test_settings_and_their_former_names_are_known() -> None:
    names = [f"WALLET_{name.upper()}" for name in (*Settings.model_fields, *RENAMED)]
    assert unknown_variables(dict.fromkeys(names, "1")) == []
    assert unknown_variables(dict.fromkeys(map(str.lower, names), "1")) == []


@pytest.mark.parametrize(
    "name",
    [
        "WALLET_HOME",
        "WALLET_HAPROXY_TIMEOUT_HTTP_REQUEST_S",
        "WALLET_SERVICE_HOST",
        "WALLET_SERVICE_PORT_HTTP",
        "WALLET_PORT",
        "WALLET_PORT_8089_TCP_ADDR",
        "WALLET_SERVE_SVC_SERVICE_PORT",
    ],
)
def test_variables_of_others_are_not_told(name: str) -> None:
    assert unknown_variables({name: "1"}) == []


def test_a_command_warns_of_a_misspelt_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_SHARDCOUNT", "3")
    result = CliRunner().invoke(app, ["logs"])
    assert "Did you mean WALLET_SHARD_COUNT?" in result.stderr


def test_the_command_tells_its_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"wallet {VERSION}\n"
