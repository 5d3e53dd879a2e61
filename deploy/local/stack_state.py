"""Writes down each process the moment it is started, whatever happens afterwards."""

import threading

from deploy.local.errors import StackError
from deploy.local.processes import ProcessRecord, stop
from deploy.local.state_dir import Stack, StateDirectory


class StackState:
    """The stack that is being changed, kept on disk as it is in memory. Safe across threads."""

    def __init__(self, home: StateDirectory, stack: Stack) -> None:
        self.stack = stack
        self._home = home
        self._lock = threading.Lock()
        self._is_closed = False
        self.save()

    def add(self, process: ProcessRecord) -> None:
        """Remember a process that was just started; stop it if the start was given up meanwhile."""
        with self._lock:
            if not self._is_closed:
                self.stack.processes[process.name] = process
                self._home.save(self.stack)
                return
        stop(process)
        raise StackError(f"The start was given up before {process.name} was needed.")

    def close(self) -> None:
        """Let no further process be started."""
        with self._lock:
            self._is_closed = True

    def save(self) -> None:
        """Write the stack down as it is."""
        with self._lock:
            self._home.save(self.stack)
