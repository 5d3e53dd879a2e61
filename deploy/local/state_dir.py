"""The state directory of one checkout's local stack.

.wallet/
  stack.json    started processes and their ports: read by every command
  lock          held by the command that is changing the stack
  logs/         one file per process; `ray` links to Ray's own
  postgres/  nats/  secrets/
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uuid6
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploy.local.errors import StackError
from deploy.local.ports import free_port, is_free
from deploy.local.processes import ProcessRecord, is_alive
from deploy.local.secret_files import write_private

_VARIABLE = "WALLET_HOME"
_LOCK_TIMEOUT_S = 180.0  # longer than a slow start, so that a second `up` waits for the first
_LOCK_POLL_S = 0.2

# A Unix socket's path has at most 107 bytes. HAProxy's is two folders below this one, and contains
# a node id of 56 characters: a checkout's path would be too long.
_SOCKETS_PARENT = Path("/tmp")  # noqa: S108  # entered through mkdtemp


class Stack(BaseModel):
    """What the last `wallet up` started, and what later ones reuse."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(default_factory=lambda: uuid6.uuid7().hex)
    """In the environment of every process of this stack."""
    ports: dict[str, int] = Field(default_factory=dict)
    sockets: Path | None = None
    processes: dict[str, ProcessRecord] = Field(default_factory=dict)
    database_url: str = ""
    nats_url: str = ""
    http_url: str = ""
    is_complete: bool = False
    """Whether that `up` completed, with a ready service."""

    def alive_processes(self) -> dict[str, ProcessRecord]:
        """The recorded processes that still run."""
        return {name: process for name, process in self.processes.items() if is_alive(process)}


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """The state directory. Reading it creates nothing."""

    root: Path

    @classmethod
    def of_this_checkout(cls) -> "StateDirectory":
        """WALLET_HOME if set, else `.wallet` in the current folder."""
        return cls(Path(os.environ.get(_VARIABLE) or ".wallet").absolute())

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    def log_of(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def create(self) -> None:
        """Create the folders that the stack needs."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for private in (self.logs, self.secrets, self.nats):
                private.mkdir(mode=0o700, exist_ok=True)
        except OSError as refused:
            raise StackError(
                f"{self.root} is not writable ({refused.strerror}). Set {_VARIABLE} to a "
                "writable folder."
            ) from refused

    def load(self) -> Stack:
        """The recorded stack; an empty one if there is none."""
        try:
            return Stack.model_validate_json((self.root / "stack.json").read_bytes())
        except FileNotFoundError:
            return Stack()
        except ValidationError as invalid:
            raise StackError(
                f"{self.root / 'stack.json'} is invalid. Stop the running processes by hand, then "
                "remove that file."
            ) from invalid

    def save(self, stack: Stack) -> None:
        """Write the stack atomically. Private, because it has the database's password."""
        write_private(self.root / "stack.json", stack.model_dump_json(indent=2) + "\n")

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Let only one command at a time change the stack. Calls `waiting` if it has to wait."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            self._lock(lock.fileno(), waiting)
            yield  # the system releases the lock when the file is closed, even by a crash

    def _lock(self, descriptor: int, waiting: Callable[[], None]) -> None:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        reported = False
        while not _try_lock(descriptor):
            if not reported:
                waiting()
                reported = True
            if time.monotonic() >= deadline:
                raise StackError(
                    f"Another command has been changing the stack in {self.root} for "
                    f"{_LOCK_TIMEOUT_S:.0f} s. Wait for it or end it, then try again."
                )
            time.sleep(_LOCK_POLL_S)


def assign_ports(stack: Stack, names: tuple[str, ...]) -> None:
    """Assign each name a free port: its previous one if that is still free."""
    for name in names:
        previous = stack.ports.get(name)
        if previous is None or not is_free(previous):
            stack.ports[name] = free_port(frozenset(stack.ports.values()))


def assign_socket_dir(stack: Stack) -> Path:
    """The short, private folder for Unix sockets; created again if the system removed it."""
    if stack.sockets is None or not stack.sockets.is_dir():
        stack.sockets = Path(tempfile.mkdtemp(prefix="wallet-", dir=_SOCKETS_PARENT))
    return stack.sockets


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
