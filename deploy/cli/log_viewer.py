"""Shows the stack's log files, and follows them."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.log_files import tail
from deploy.local.state_dir import StateDirectory

_POLL_S = 0.25
_HEAD_BYTES = 4_096
_TITLE = b":actor_name:"


def files_of(state_dir: StateDirectory, name: str | None) -> list[tuple[str, Path]]:
    """The log files selected by `name` (all if None), each with its display name.

    `service` selects what the service's own processes log; `serve` what Ray Serve logs about them.
    """
    named = [(path.stem, path) for path in sorted(state_dir.logs.glob("*.log"))]
    ray = state_dir.logs / "ray"
    named += [(f"service/{_process_of(path)}", path) for path in sorted(ray.glob("worker-*.out"))]
    serve = (path for path in sorted((ray / "serve").glob("*.log")) if path.stat().st_size)
    named += [(f"serve/{path.stem}", path) for path in serve]
    if name is None:
        return named
    chosen = [item for item in named if item[0] == name or item[0].startswith(f"{name}/")]
    if not chosen:
        known = sorted({known.partition("/")[0] for known, _ in named})
        if not known:
            raise StackError("There are no logs yet: nothing was started here.")
        raise StackError(f"No log named `{name}`. Available logs: {', '.join(known)}.")
    return chosen


def _process_of(path: Path) -> str:
    """Title and pid of the process whose output Ray keeps in ``worker-<id>-<job>-<pid>.out``."""
    pid = path.stem.rpartition("-")[2]
    with path.open("rb") as file:
        titles = [line for line in file.read(_HEAD_BYTES).splitlines() if line.startswith(_TITLE)]
    title = (
        titles[-1].removeprefix(_TITLE).decode("utf-8", errors="replace") if titles else "worker"
    )
    return f"{title.rpartition('::')[2]}-{pid}"


def lines_with(files: Iterable[tuple[str, Path]], text: str) -> Iterator[str]:
    """Every line that contains ``text``, whole files read."""
    wanted = text.encode()
    for name, path in files:
        with suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                if wanted in line:
                    yield f"{name} | {line.decode('utf-8', errors='replace').rstrip()}"


def last_lines(files: Iterable[tuple[str, Path]], count: int) -> Iterator[str]:
    """The last lines of each log."""
    for name, path in files:
        for line in tail(path)[-count:]:
            yield f"{name} | {line}"


def new_lines(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """New lines, until interrupted. A truncated log is read again from its start."""
    offsets = {path: path.stat().st_size for _, path in files if path.exists()}
    while True:
        for name, path in files:
            lines, offsets[path] = _since(path, offsets.get(path, 0))
            yield from (f"{name} | {line}" for line in lines)
        time.sleep(_POLL_S)


def _since(path: Path, offset: int) -> tuple[list[str], int]:
    """Complete lines after `offset`, and the offset for the next call."""
    try:
        with path.open("rb") as file:
            file.seek(0 if path.stat().st_size < offset else offset)
            start = file.tell()
            text = file.read()
    except FileNotFoundError:
        return [], 0
    whole = text.rpartition(b"\n")[0]
    if not whole:
        return [], start
    return whole.decode("utf-8", errors="replace").splitlines(), start + len(whole) + 1
