"""Processes of one machine load their modules in turns.

Why: loading them takes a process about a second of CPU. If a deployment starts many at the same
time, they take all CPUs, and requests of the running version wait behind them at each of their
hops. In turns this part of their start takes half of the CPUs, and as long in total. (Ray's own
part, before it, is not in turns.)

Imports nothing but the standard library: whatever is loaded before the turn is loaded in none.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WAIT_S_MAX: Final = 30.0
"""After so long a process starts without a turn: one that hangs must not stop the others."""

_POLL_S: Final = 0.05


@contextmanager
def start_turn(
    folder: Path | None = None, *, places: int | None = None, wait_s_max: float = WAIT_S_MAX
) -> Iterator[bool]:
    """Hold one of the machine's ``places`` (default: one per two CPUs, at least one).

    The place is a locked file in ``folder``, so a process that dies gives it back. Without a folder
    of its own, or after ``wait_s_max`` seconds, it goes on without a place: yields False then.
    """
    held = _wait_for_place(
        folder or Path(tempfile.gettempdir()) / f"wallet-start-{os.getuid()}",
        places or max(1, (os.cpu_count() or 1) // 2),
        wait_s_max,
    )
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


def _wait_for_place(folder: Path, places: int, wait_s_max: float) -> int | None:
    deadline = time.monotonic() + wait_s_max
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid():  # Another user could have put it there.
            return None
        while (held := _free_place(folder, places)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    except OSError:
        return None
    return held


def _free_place(folder: Path, places: int) -> int | None:
    """An open file with a lock, or None if others have all of them."""
    for place in range(places):
        file = os.open(folder / str(place), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return file
    return None
