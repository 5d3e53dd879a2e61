"""Where PostgreSQL's data is stored when it must run under another account."""

import os
from pathlib import Path

import pytest

from deploy.local import postgres_layout
from deploy.local.errors import StackError
from deploy.local.postgres_layout import remove_data, resolve_layout
from deploy.local.unix_accounts import Account

OTHER_ACCOUNT = Account(name="somebody", uid=os.getuid(), gid=os.getgid())


@pytest.fixture
def system_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(postgres_layout, "_SYSTEM_FOLDERS", (folder,))
    return folder


@pytest.fixture
def run_as_other_account(monkeypatch: pytest.MonkeyPatch, system_folder: Path) -> list[Path]:
    """Run as root: PostgreSQL has another account, which may enter these folders only."""
    enterable = [system_folder]

    def may(account: Account, access: str, *paths: Path) -> bool:
        return all(any(path.is_relative_to(one) for one in enterable) for path in paths)

    monkeypatch.setattr(postgres_layout, "unprivileged_account", lambda: OTHER_ACCOUNT)
    monkeypatch.setattr(postgres_layout, "has_access", may)
    return enterable


def test_an_ordinary_user_keeps_the_data_in_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_layout, "unprivileged_account", lambda: None)

    place = resolve_layout(tmp_path / "postgres")

    assert place.data == tmp_path / "postgres" / "data"
    assert not place.is_relocated
    assert (place.binaries / "initdb").exists()


def test_an_account_that_may_enter_the_state_directory_keeps_data_there(
    tmp_path: Path, run_as_other_account: list[Path]
) -> None:
    run_as_other_account.append(Path("/"))

    assert not resolve_layout(tmp_path / "postgres").is_relocated


def test_an_account_without_access_gets_a_system_folder_and_keeps_it(
    tmp_path: Path, run_as_other_account: list[Path], system_folder: Path
) -> None:
    first = resolve_layout(tmp_path / "postgres")

    assert first.is_relocated
    assert first.parent.is_relative_to(system_folder)
    assert first.password_file.parent == tmp_path / "postgres"
    assert resolve_layout(tmp_path / "postgres") == first


def test_binaries_that_cannot_be_entered_are_copied_beside_the_data(
    tmp_path: Path, run_as_other_account: list[Path], system_folder: Path
) -> None:
    place = resolve_layout(tmp_path / "postgres")

    assert place.binaries.is_relative_to(system_folder)
    assert os.access(place.binaries / "postgres", os.X_OK)
    assert (place.binaries.parent / "share" / "postgres.bki").exists()


def test_removing_takes_the_folder_of_the_system_with_it(
    tmp_path: Path, run_as_other_account: list[Path], system_folder: Path
) -> None:
    resolve_layout(tmp_path / "postgres")

    remove_data(tmp_path / "postgres")

    assert list(system_folder.iterdir()) == []
    assert not (tmp_path / "postgres").exists()


def test_data_that_has_vanished_is_not_replaced_by_an_empty_database(
    tmp_path: Path, run_as_other_account: list[Path]
) -> None:
    place = resolve_layout(tmp_path / "postgres")
    place.parent.rename(place.parent.with_name("moved"))

    with pytest.raises(StackError, match="is missing"):
        resolve_layout(tmp_path / "postgres")


def test_missing_binaries_are_an_error_of_one_line_and_make_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_folder: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(StackError, match=r"Remove \.venv and run `make up`"):
        resolve_layout(tmp_path / "postgres")

    assert not (tmp_path / "postgres").exists()
    assert list(system_folder.iterdir()) == []
