"""Whom PostgreSQL runs as. It refuses to be root, so root lends it an account without rights."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from deploy.local.errors import StackError

# An account made for it if the machine has one, else the one that every Unix has. None is
# created: starting a wallet shouldn't change the machine's list of users.
_CANDIDATES = ("postgres", "nobody")


class PopenIdentity(TypedDict, total=False):
    """The arguments of subprocess.Popen that say whom a child runs as."""

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
    """Whom PostgreSQL must run as, or None where it can simply run as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise StackError(
        "PostgreSQL refuses to run as root and this machine has no account `postgres` or `nobody`:"
        " run as an ordinary user, or set WALLET_DATABASE_URL to a server of your own."
    )


def has_access(account: Account, access: str, *paths: Path) -> bool:
    """Whether `account` may read ("r"), write ("w") or enter and run ("x") all of `paths`.

    Asks the system as that account, so every rule that the system knows counts.
    """
    try:
        return all(_check_access(account, access, path) for path in paths)
    except PermissionError as refused:
        raise StackError(
            f"PostgreSQL refuses to run as root and this process may not become `{account.name}`:"
            " run as an ordinary user, or set WALLET_DATABASE_URL to a server of your own."
        ) from refused


def _check_access(account: Account, access: str, path: Path) -> bool:
    command = ["test", f"-{access}", str(path)]
    completed = subprocess.run(
        command, check=False, timeout=10, cwd="/", **account.popen_arguments()
    )
    return completed.returncode == 0
