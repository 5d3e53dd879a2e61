"""A deterministic event loop: virtual time, and a seed that orders the callbacks.

Theory of operation. There is one thread, no selector and no wall clock. Every callback belongs to
a *process* (a context variable that tasks and timers inherit), and processes are what a machine
would run side by side: the seed chooses which of them moves next. Within a process callbacks keep
their order, as they do in asyncio, unless the seed says otherwise. When nothing is ready, the
clock jumps to the next timer.

Killing a process drops its callbacks: it just never runs again, like after kill -9; no
``finally`` runs. Pausing one (SIGSTOP) keeps them until it is resumed.
"""

import asyncio
import gc
import heapq
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVarTuple

Arguments = TypeVarTuple("Arguments")


class Deadlock(Exception):
    """Nothing is ready or scheduled and the run has not ended, or it loops without progress."""


class Process:
    """A simulated process, which can be killed and paused."""

    def __init__(self, loop: "SimulatedLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.held: list[asyncio.Handle] = []
        self.failures: list[BaseException] = []
        self._loop = loop
        self._deaths: list[Callable[[], None]] = []
        self.context = copy_context()
        self.context.run(_process.set, self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` as this process. If it raises, the process has a bug: see ``failures``."""
        task = self._loop.create_task(work, context=self.context.copy())
        task.add_done_callback(self._note_end, context=self.context)
        return task

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> None:
        """Run ``callback`` in this process, if it is alive then."""
        self._loop.call_later(delay_s, callback, *args, context=self.context)

    def on_death(self, callback: Callable[[], None]) -> None:
        self._deaths.append(callback)

    def kill(self) -> None:
        self.alive = False
        self.held.clear()
        for callback in self._deaths:
            callback()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        held, self.held = self.held, []
        self._loop.release(held)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs one seed. ``ticks`` counts the callbacks that ran."""

    def __init__(
        self, random: Random, *, shuffle_within: bool = False, ticks_max: int = 2_000_000
    ) -> None:
        super().__init__()
        self.set_debug(False)
        self.ticks = 0
        self._moments = 0
        self._now = 0.0
        self._random = random
        self._shuffle_within = shuffle_within
        self._ticks_max = ticks_max
        self._ready: list[asyncio.Handle] = []
        self._discarded = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._scheduled: list[asyncio.TimerHandle] = []
        self.set_task_factory(_kept_task)

    def time(self) -> float:
        return self._now

    def moment(self) -> int:
        """A clock reading that never repeats."""
        self._moments += 1
        return self._moments

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Keep ``task`` alive: when freed, a dead process's coroutine would run its ``finally``."""
        self._tasks.append(task)

    def release(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    # -- what BaseEventLoop leaves to its kinds ---------------------------------------------

    def _run_once(self) -> None:
        self._add_due()
        while not self._ready:
            if not self._scheduled:
                raise Deadlock("nothing is ready and nothing is due")
            self._now = max(self._now, self._scheduled[0].when())
            self._add_due()
        handle = self._choose()
        if handle.cancelled():
            return
        process = _process_of(handle)
        if process is not None and not process.alive:
            return
        if process is not None and process.paused:
            process.held.append(handle)
            return
        self.ticks += 1
        if self.ticks > self._ticks_max:
            raise Deadlock(f"no end after {self.ticks} steps")
        handle._run()

    def _add_due(self) -> None:
        while self._scheduled and self._scheduled[0].when() <= self._now:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]  # asyncio's own
            if not handle.cancelled():
                self._ready.append(handle)

    def _choose(self) -> asyncio.Handle:
        ready = self._ready
        if len(ready) == 1:
            return ready.pop()
        index = int(self._random.random() * len(ready))
        if not self._shuffle_within:
            process = _process_of(ready[index])
            index = next(n for n, handle in enumerate(ready) if _process_of(handle) is process)
        return ready.pop(index)

    def discard(self) -> None:
        """Free everything. What dead processes' coroutines still do on close has no effect."""
        self._discarded = True
        self.set_exception_handler(lambda *_: None)
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
                with suppress(Exception):
                    task.get_coro().close()
        self._tasks.clear()
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _check_closed(self) -> None:
        """Not checked: coroutines that are freed late may still call it."""

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._discarded:
            self._ready.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers stay until they are due; then they are dropped."""

    def _write_to_self(self) -> None:
        raise AssertionError("a simulation has one thread")

    def _process_events(self, event_list: object) -> None:
        raise AssertionError("a simulation has no selector")


def _process_of(handle: asyncio.Handle) -> Process | None:
    context: Context = handle._context  # type: ignore[attr-defined]  # asyncio's own
    return context.get(_process)


def _kept_task(
    loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None
) -> asyncio.Task[Any]:
    assert isinstance(loop, SimulatedLoop)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    loop.keep(task)
    return task


def run(loop: SimulatedLoop, main: Coroutine[Any, Any, Any]) -> Any:
    """Run ``main`` to its end, then drop everything that still waits without running it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.discard()
        if collecting:
            gc.enable()
