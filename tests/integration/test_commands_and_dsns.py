"""Commands with DSNs of several hosts and with options. Passwords are never printed."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.cli import key_commands, stack_commands
from deploy.local.errors import StackError
from deploy.local.progress import Progress
from deploy.local.servers import check_external_servers, without_password
from deploy.local.state_dir import StateDirectory
from migrations.revisions import oldest_compatible
from runtime.postgres.dsn import PostgresDsn
from runtime.postgres.errors import OPERATOR_ERRORS
from runtime.settings import Settings
from tests.support.databases import execute
from tests.support.hosts import address_of, dsn_of, refusing_host, unanswering_host


@pytest.fixture
def state_dir(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "home")


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=500)


def settings_for(dsn: str) -> Settings:
    return Settings(_env_file=None, database_url=dsn)


def passwords_of(dsn: str) -> frozenset[str]:
    found = PostgresDsn.parse(dsn).secrets
    assert found
    return found


def test_every_command_works_with_several_hosts_and_options(
    empty_database: str, state_dir: StateDirectory, console: Console
) -> None:
    with unanswering_host() as hung, refusing_host() as dead:
        dsn = dsn_of(
            hung, dead, address_of(empty_database), of=empty_database, options="?sslmode=prefer"
        )
        settings = settings_for(dsn)
        with Progress(console) as steps:
            check_external_servers(settings, steps)
        stack_commands.migrate(settings, state_dir, console)
        key_commands.create(
            settings, state_dir, key_commands.NewKeyOptions(name="till", scopes=("wallets:read",))
        )
        key_commands.show(settings, state_dir, console)
        stack_commands.rebuild_projections(settings, state_dir, console)
        stack_commands.show_dead_letters(settings, state_dir, console)
        stack_commands.replay_dead_letters(settings, state_dir, console)
        assert stack_commands.verify(settings, state_dir, stream=False, lag_max_s=300.0) == 0
    shown = console.export_text()
    assert "The database is migrated" in shown
    assert "till" in shown
    assert not any(secret in shown for secret in passwords_of(dsn))


def test_migrating_a_newer_database_is_a_note(
    database: str, state_dir: StateDirectory, console: Console
) -> None:
    execute(database, "UPDATE alembic_version SET version_num = '9001'")
    stack_commands.migrate(settings_for(database), state_dir, console)
    assert "The database is at revision 9001, newer than this release" in console.export_text()
    execute(database, oldest_compatible("9001"))
    with pytest.raises(StackError, match="needs a release that knows revision 9001"):
        stack_commands.migrate(settings_for(database), state_dir, console)


def test_a_failure_names_the_hosts_and_no_password(
    database: str, state_dir: StateDirectory, console: Console
) -> None:
    with refusing_host() as one, refusing_host() as other:
        dsn = dsn_of(one, other, of=database, options="?sslmode=require")
        failures: list[Exception] = []
        for command in (_migrate, _check):
            with pytest.raises(StackError) as failed:
                command(settings_for(dsn), state_dir, console)
            failures.append(failed.value)
    for failure in failures:
        assert f"127.0.0.1:{one[1]}: " in str(failure)
        assert f"127.0.0.1:{other[1]}: " in str(failure)
    assert not any(secret in f"{failures} {console.export_text()}" for secret in passwords_of(dsn))


def test_a_malformed_dsn_is_an_error_without_its_password(
    state_dir: StateDirectory, console: Console
) -> None:
    settings = settings_for("postgresql://u:s3cr3t/x@a/db")
    commands = (_migrate, _check, stack_commands.rebuild_projections, key_commands.show)
    for command in commands:
        with pytest.raises((StackError, *OPERATOR_ERRORS)) as failed:
            command(settings, state_dir, console)
        assert "s3cr3t" not in str(failed.value)
        assert "percent-encoded" in str(failed.value)


@pytest.mark.parametrize(
    ("urls", "shown"),
    [
        ("nats://user:secret@one:4222", "nats://one:4222"),
        ("nats://token@one", "nats://one"),
        ("nats://u:p@one:1,tls://u:p@[::1]:2", "nats://one:1,tls://[::1]:2"),
    ],
)
def test_nats_urls_are_shown_without_their_secrets(urls: str, shown: str) -> None:
    assert without_password(urls) == shown


def _migrate(settings: Settings, state_dir: StateDirectory, console: Console) -> Any:
    stack_commands.migrate(settings, state_dir, console)


def _check(settings: Settings, _state_dir: StateDirectory, console: Console) -> Any:
    with Progress(console) as steps:
        check_external_servers(settings, steps)
