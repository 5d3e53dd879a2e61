"""Shows the stack's log files, and follows them."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.log_files import tail
from deploy.local.state_dir import StateDirectory

_POLL_S = 0.25


def files_of(state_dir: StateDirectory, name: str | None) -> list[tuple[str, Path]]:
    """The log files selected by `name` (all if None), each with its display name.

    `serve` selects the logs of Ray Serve's replicas, shards and proxies.
    """
    named = [(path.stem, path) for path in sorted(state_dir.logs.glob("*.log"))]
    serve = sorted((state_dir.logs / "ray" / "serve").glob("*.log"))
    named += [(f"serve/{path.stem}", path) for path in serve]
    if name is None:
        return named
    chosen = [item for item in named if item[0] == name or item[0].startswith(f"{name}/")]
    if not chosen:
        known = sorted({known.partition("/")[0] for known, _ in named})
        raise StackError(
            f"No log named `{name}`. Available logs: {', '.join(known) or 'none yet'}."
        )
    return chosen


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
