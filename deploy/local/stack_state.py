"""Records each process on disk as soon as it is started."""

import threading

from deploy.local.errors import StackError
from deploy.local.processes import ProcessRecord, stop
from deploy.local.state_dir import Stack, StateDirectory


class StackState:
    """The stack that is being changed, in memory and on disk. Thread-safe."""

    def __init__(self, state_dir: StateDirectory, stack: Stack) -> None:
        self.stack = stack
        self._state_dir = state_dir
        self._lock = threading.Lock()
        self._is_closed = False
        self.save()

    def add(self, process: ProcessRecord) -> None:
        """Record a process that was just started; stop it if the start was cancelled."""
        with self._lock:
            if not self._is_closed:
                self.stack.processes[process.name] = process
                self._state_dir.save(self.stack)
                return
        stop(process)
        raise StackError(f"{process.name} was stopped because the start was cancelled.")

    def close(self) -> None:
        """Cancel the start: processes added from now on are stopped."""
        with self._lock:
            self._is_closed = True

    def save(self) -> None:
        """Write the stack to disk."""
        with self._lock:
            self._state_dir.save(self.stack)
