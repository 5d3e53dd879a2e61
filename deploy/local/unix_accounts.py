"""The account that PostgreSQL runs as. It refuses to run as root, so root uses another one."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from deploy.local.errors import StackError

# PostgreSQL's own account if the machine has one, else one that every Unix has. None is created:
# starting a wallet must not change the machine's users.
_CANDIDATES = ("postgres", "nobody")


class PopenIdentity(TypedDict, total=False):
    """The arguments of subprocess.Popen for the account of a child."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account of this machine."""

    name: str
    uid: int
    gid: int

    def popen_arguments(self) -> PopenIdentity:
        """Arguments for subprocess.Popen. No supplementary groups: root's must not leak."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def unprivileged_account() -> Account | None:
    """The account that PostgreSQL must run as; None if it can run as the current user."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name=name, uid=found.pw_uid, gid=found.pw_gid)
    raise StackError(
        "PostgreSQL refuses to run as root and this machine has no account `postgres` or `nobody`."
        " Run as an ordinary user, or set WALLET_DATABASE_URL to your own server."
    )


def has_access(account: Account, access: str, *paths: Path) -> bool:
    """Whether `account` may read ("r"), write ("w") or enter and run ("x") all of `paths`.

    Checked by a process of that account, so that all rules of the system apply.
    """
    try:
        return all(_check_access(account, access, path) for path in paths)
    except PermissionError as refused:
        raise StackError(
            f"PostgreSQL refuses to run as root and this process may not become `{account.name}`."
            " Run as an ordinary user, or set WALLET_DATABASE_URL to your own server."
        ) from refused


def _check_access(account: Account, access: str, path: Path) -> bool:
    command = ["test", f"-{access}", str(path)]
    completed = subprocess.run(
        command, check=False, timeout=10, cwd="/", **account.popen_arguments()
    )
    return completed.returncode == 0
