"""The life cycle of a stack: what `make up` and `make down` promise."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.local.ports import answers, free_port
from deploy.local.processes import kill, process_tree, processes_with_env
from deploy.local.ray_environment import STACK_VARIABLE
from deploy.local.state_dir import StateDirectory

CHECKOUT = Path(__file__).parents[2]
ENTRY = "import sys; from deploy.cli.main import main; sys.exit(main())"
UP_TIMEOUT_S = 200
CLIENTS = 8


class Stack:
    """A stack in a temporary folder, controlled through the `wallet` command."""

    def __init__(self, state_dir: StateDirectory) -> None:
        self.state_dir = state_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def wallet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("WALLET_")}
        ours = {"WALLET_HOME": str(self.state_dir.root), "WALLET_HTTP_PORT": str(self.port)}
        return subprocess.run(
            [sys.executable, "-c", ENTRY, *arguments],
            env=kept | ours,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )

    def insist(self, *arguments: str) -> str:
        done = self.wallet(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def balance_of(self, wallet_id: str) -> str:
        answer = httpx.get(f"{self.url}/v1/wallet/{wallet_id}?consistency=strong", timeout=10)
        answer.raise_for_status()
        return str(answer.json()["balance"])


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="wallet-lifecycle-"))
    running = Stack(StateDirectory(folder / "home"))
    yield running
    running.wallet("down")
    running.wallet("clean", "--yes")
    (running.state_dir.root / "lock").unlink(missing_ok=True)
    folder.rmdir()


class Clients:
    """Clients that debit one wallet, a new connection each time, until they are refused."""

    def __init__(self, url: str, wallet_id: str) -> None:
        self.acknowledged = 0
        self.answered_otherwise: list[str] = []
        self._target = f"{url}/v1/wallet/{wallet_id}/transfers/debit"
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                answer = httpx.post(
                    self._target, json={"amount": "1.00", "status": "completed"}, timeout=30
                )
            except httpx.TransportError:
                return  # refused, or reset before it was read: the port is closed
            with self._lock:
                if answer.status_code == 201:
                    self.acknowledged += 1
                else:
                    self.answered_otherwise.append(f"{answer.status_code} {answer.text[:200]}")
                    return


@pytest.mark.timeout(900)
def test_a_stack_from_nothing_to_nothing(stack: Stack) -> None:
    first = stack.insist("up")
    assert f"The wallet service is up: http://localhost:{stack.port}" in first

    assert "is already up" in stack.insist("up")
    assert "is ready" in stack.insist("status")
    refused = stack.wallet("clean", "--yes")
    assert (refused.returncode, "wallet down" in refused.stderr) == (1, True)

    wallet_id = httpx.post(f"{stack.url}/v1/wallet", json={}, timeout=30).json()["id"]
    clients = Clients(stack.url, wallet_id)
    database_port = urlsplit(stack.state_dir.load().database_url).port
    stack.insist("down")
    clients.join()
    assert clients.answered_otherwise == []
    assert clients.acknowledged > 0
    _insist_that_nothing_runs(stack)
    assert database_port is not None
    assert not answers(database_port)
    assert "Nothing is running" in stack.insist("down")

    stack.insist("up")  # every acknowledged write was applied exactly once
    assert stack.balance_of(wallet_id) == f"{clients.acknowledged}.00"

    kill(process_tree(stack.state_dir.load().processes["ray"]))
    assert stack.wallet("status").returncode == 1
    stack.insist("down")
    _insist_that_nothing_runs(stack)

    sockets = stack.state_dir.load().sockets
    stack.insist("clean", "--yes")
    assert sockets is not None
    assert not sockets.exists()
    assert not stack.state_dir.root.exists()


def _insist_that_nothing_runs(stack: Stack) -> None:
    remembered = stack.state_dir.load()
    assert remembered.processes == {}
    assert processes_with_env(STACK_VARIABLE, remembered.id) == []
    assert not answers(stack.port)
