"""An event loop with virtual time: a test that waits for an hour ends immediately.

Theory of operation. While anything is ready to run, a turn of the loop takes a microsecond, however
long it takes in truth. When nothing is ready, the clock jumps to the next timer, as trio's autojump
clock does. Two things outside the loop hold it back:

- A job in another thread: the loop blocks until the job is done, however long it takes.
- A socket that the loop watches: what the peer sent may still be on its way through the kernel. The
  clock jumps once nothing has arrived for `QUIET_S` of real time. The peers of such tests run in
  this very loop, where a sent byte can be read as soon as the sender has returned.
"""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

TURN_S = 1e-6
"""Virtual duration of a loop iteration. Not zero: a loop without waits must advance the clock."""

QUIET_S = 0.02
"""Real time in which nothing must arrive at a watched socket before the clock may jump."""

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances the clock where asyncio would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.jobs = 0
        """Unfinished jobs in other threads."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.jobs:
            # Only the outside world can go on. (Without a job a timeout of None is a deadlock of
            # the test, which its time limit ends.)
            return super().select(0 if timeout is not None and timeout <= 0 else None)
        # One file is always watched: the loop's own, through which threads wake it up.
        watches_sockets = len(self.get_map()) > 1
        ready = super().select(QUIET_S if watches_sockets and timeout > 0 else 0)
        self.now_s += TURN_S if ready or timeout <= 0 else timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on a clock that begins at 0 and jumps to the next timer."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def stall(self, seconds: float) -> None:
        """Advance the clock without running the loop, as on an overloaded machine."""
        self._virtual.now_s += seconds

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Result],
        *args: *Arguments,
    ) -> "asyncio.Future[Result]":
        job = super().run_in_executor(executor, func, *args)
        self._virtual.jobs += 1
        job.add_done_callback(self._end_job)
        return job

    def _end_job(self, _job: "asyncio.Future[Any]") -> None:
        self._virtual.jobs -= 1


class VirtualTime:
    """Replaces `time` in a module whose code waits without an event loop."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.on_sleep: Callable[[], object] = lambda: None
        """Called during each sleep: what other processes do meanwhile."""

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds
        self.on_sleep()
