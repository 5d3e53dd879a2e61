"""Processes of one machine load their modules in turns.

Why: loading them takes a process about a second of CPU. If a deployment starts many at the same
time, they take all CPUs, and requests of the running version wait behind them at each of their
hops. In turns this part of their start takes half of the CPUs, and as long in total.

Ray's own part, before it, is the raylet's: it starts as many workers at a time as
RAY_worker_maximum_startup_concurrency says, which is the number of places, too. Who isn't in a
hurry (``politely``) begins only while fewer of them than places are starting.

Imports nothing but the standard library: whatever is loaded before the turn is loaded in none.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WAIT_S_MAX: Final = 30.0
"""After so long a process starts without a turn: one that hangs must not stop the others."""

_POLL_S: Final = 0.1

_STARTS_VARIABLE: Final = "RAY_worker_maximum_startup_concurrency"
_RAY_PROGRAM: Final = b"/default_worker.py"
"""An argument of a worker that Ray has started, until it gives itself a title, ends like this."""


def starting_ray_workers(proc: Path = Path("/proc")) -> int:
    """Ray's workers of this machine that have not finished Ray's part of their start.

    0 where there is no /proc to read.
    """
    return sum(map(_is_starting, proc.glob("[0-9]*")))


def _is_starting(process: Path) -> bool:
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # It has ended, or is another user's.
        return False
    return any(one.endswith(_RAY_PROGRAM) for one in arguments)


@contextmanager
def start_turn(
    folder: Path | None = None,
    *,
    places: int | None = None,
    wait_s_max: float = WAIT_S_MAX,
    politely: bool = False,
    starting: Callable[[], int] = starting_ray_workers,
) -> Iterator[bool]:
    """Hold one of the machine's ``places`` (default: as many as workers may start at a time).

    The place is a locked file in ``folder``, so a process that dies gives it back. Without a folder
    of its own, or after ``wait_s_max`` seconds, it goes on without a place: yields False then.
    ``politely``: not while as many workers as there are places are ``starting``, either.
    """
    places = places or _places_of_this_node()
    deadline = time.monotonic() + wait_s_max
    held = _wait_for_place(
        folder or Path(tempfile.gettempdir()) / f"wallet-start-{os.getuid()}", places, deadline
    )
    # Only who has a place looks: it reads about a hundred files.
    while politely and starting() >= places and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


def _places_of_this_node() -> int:
    """What the hook of `ray start` has set; without it, one per two CPUs, at least one."""
    return int(os.environ.get(_STARTS_VARIABLE) or max(1, (os.cpu_count() or 1) // 2))


def _wait_for_place(folder: Path, places: int, deadline: float) -> int | None:
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
