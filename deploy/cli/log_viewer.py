"""Shows the stack's log files, and follows them."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.log_files import tail
from deploy.local.state_dir import StateDirectory

_POLL_S = 0.25


def files_of(home: StateDirectory, name: str | None) -> list[tuple[str, Path]]:
    """The logs that `name` means (all if None), each with the name to show beside its lines.

    `serve` means what the replicas, shards and proxies of Ray Serve write.
    """
    named = [(path.stem, path) for path in sorted(home.logs.glob("*.log"))]
    serve = sorted((home.logs / "ray" / "serve").glob("*.log"))
    named += [(f"serve/{path.stem}", path) for path in serve]
    if name is None:
        return named
    chosen = [entry for entry in named if entry[0] == name or entry[0].startswith(f"{name}/")]
    if not chosen:
        known = sorted({known.partition("/")[0] for known, _ in named})
        raise StackError(
            f"There is no log `{name}`: choose one of {', '.join(known) or 'none yet'}."
        )
    return chosen


def last_lines(files: Iterable[tuple[str, Path]], count: int) -> Iterator[str]:
    """The last lines of each log."""
    for name, path in files:
        for line in tail(path)[-count:]:
            yield f"{name} | {line}"


def new_lines(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """Lines as they are written, from now on and for ever; a log begun anew is read anew."""
    offsets = {path: path.stat().st_size for _, path in files if path.exists()}
    while True:
        for name, path in files:
            lines, offsets[path] = _since(path, offsets.get(path, 0))
            yield from (f"{name} | {line}" for line in lines)
        time.sleep(_POLL_S)


def _since(path: Path, offset: int) -> tuple[list[str], int]:
    """Whole lines after `offset`, and where the next call goes on."""
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
