"""Shows the steps of a command while it runs, and how long each took.

On a terminal one status line shows the running steps. Elsewhere (a pipe, a CI log) each step prints
a line when it begins and when it ends. Steps may overlap and run in several threads.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status


class Progress:
    """The steps of one command. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._running: list[str] = []
        self._status: Status | None = None

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status = self._console.status("…")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    @contextmanager
    def step(self, doing: str, done: str) -> Iterator[None]:
        """One step: shows `doing` while it runs and if it fails, `done` when it has succeeded."""
        began = time.monotonic()
        self._begin(doing)
        try:
            yield
        except BaseException:
            self._end(doing, f"[red]✗[/red] {doing}", began)
            raise
        self._end(doing, f"[green]✓[/green] {done}", began)

    def message(self, text: str) -> None:
        """Print a line between steps."""
        with self._lock:
            self._console.print(f"  {text}", highlight=False, markup=False)

    def _begin(self, doing: str) -> None:
        with self._lock:
            self._running.append(doing)
            if self._status is None:
                self._console.print(f"… {doing}", highlight=False)
            self._show()

    def _end(self, doing: str, line: str, began: float) -> None:
        elapsed_s = time.monotonic() - began
        with self._lock:
            self._running.remove(doing)
            self._console.print(f"{line} [dim]({elapsed_s:.1f} s)[/dim]", highlight=False)
            self._show()

    def _show(self) -> None:
        if self._status is not None:
            self._status.update(", ".join(self._running) or "…")
