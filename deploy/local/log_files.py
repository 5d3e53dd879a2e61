"""The log files of the local stack."""

from pathlib import Path
from typing import IO

_ROTATE_AT_BYTES = 20_000_000
_TAIL_BYTES = 64_000


def open_for_append(path: Path) -> IO[bytes]:
    """Open a log for appending; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def rotate(path: Path) -> None:
    """Rename a large log to `.1`, replacing the previous one. Call it before a start."""
    if path.exists() and path.stat().st_size > _ROTATE_AT_BYTES:
        path.replace(path.with_suffix(path.suffix + ".1"))


def tail(path: Path, *, bytes_max: int = _TAIL_BYTES) -> list[str]:
    """The last lines of a log; empty if the file doesn't exist."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - bytes_max))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def last_matching_line(path: Path, *words: str) -> str:
    """The last line of a log that contains one of `words`, or an empty string."""
    matching = (line.strip() for line in reversed(tail(path)) if any(w in line for w in words))
    return next(matching, "")
