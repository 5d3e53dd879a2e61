"""A file system of limited size for a server's files, which can be filled and freed again."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from deploy.local.unix_accounts import Account

_BALLAST: Final = "ballast"
_BLOCK: Final = bytes(1 << 16)


def unavailable_reason() -> str | None:
    """Why no file system can be mounted on this machine; None if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting a file system needs root on Linux"
    with tempfile.TemporaryDirectory() as folder:
        if _mount(Path(folder), megabytes=1, check=False).returncode:
            return "no permission to mount a file system"
        unmount(Path(folder))
    return None


class LimitedDisk:
    """A tmpfs. Removed by `unmount_all` below its folder, or with the machine."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _mount(folder, megabytes=megabytes)
        folder.chmod(0o755)
        self.folder = folder

    def give_to(self, account: Account | None) -> None:
        """Let the server's account write to it."""
        if account is not None:
            os.chown(self.folder, account.uid, account.gid)

    def fill(self) -> int:
        """Take all space that is left; returns the bytes taken."""
        taken = 0
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast:
            while True:
                try:
                    taken += ballast.write(_BLOCK)
                except OSError:
                    return taken

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def unmount_all(below: Path) -> None:
    """Unmount every file system below a folder."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = Path(line.split()[1])
        if place.is_relative_to(below):
            unmount(place)


def _mount(
    folder: Path, *, megabytes: int, check: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "drill", str(folder)]
    return subprocess.run(command, check=check, capture_output=True)
