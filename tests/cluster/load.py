"""Steady load that knows afterwards whether anything failed, was lost or was doubled."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from tests.e2e.api import Api, new_id

_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 90.0
_RETRY_S: Final = 0.05
_PAUSE_S: Final = 0.02
"""Between a client's requests: enough load to be hurt, and the machine has more to do."""


class Load:
    """Clients that debit 1.00 at a time, each into a wallet of its own, one request at a time.

    What doesn't succeed is counted in ``failures`` and repeated under its key, as a client should.
    So each wallet's balance must be what its client was told.
    """

    def __init__(self, url: str, *, clients: int = 8) -> None:
        self.failures: Counter[str] = Counter()
        self.longest_wait_s = 0.0
        """From a request's first attempt to its success."""
        self.failed_at: list[float] = []
        """When attempts failed, by the monotonic clock."""
        self.given_up = 0
        """Requests that never succeeded, so that nobody knows what came of them."""
        self._url = url
        self._acknowledged: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        with Api(url) as api:
            self._wallets = [api.new_wallet() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._run, args=(wallet,)) for wallet in self._wallets
        ]

    @property
    def clients(self) -> int:
        return len(self._wallets)

    @property
    def acknowledged(self) -> int:
        return self._acknowledged.total()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=_END_TIMEOUT_S)
            assert not thread.is_alive()

    def go_on_until(self, acknowledged: int, *, timeout_s: float = 60.0) -> None:
        """Wait until so many requests have succeeded."""
        deadline = time.monotonic() + timeout_s
        while self.acknowledged < acknowledged:
            assert time.monotonic() < deadline, f"{self.acknowledged} of {acknowledged}"
            time.sleep(_RETRY_S)

    def wait_for_each(self, more: int, *, timeout_s: float) -> None:
        """Wait until every wallet has been written to so many times more."""
        goal = {wallet: self._acknowledged[wallet] + more for wallet in self._wallets}
        deadline = time.monotonic() + timeout_s
        while any(self._acknowledged[wallet] < goal[wallet] for wallet in self._wallets):
            assert time.monotonic() < deadline, "a wallet is not written to any more"
            time.sleep(_RETRY_S)

    def lost_or_doubled(self) -> dict[str, str]:
        """Wallets whose balance isn't what their client was told; empty if all is well."""
        wrong = {}
        with Api(self._url) as api:
            for wallet in self._wallets:
                told = f"{self._acknowledged[wallet]}.00"
                found = api.state(wallet)["balance"]
                if found != told:
                    wrong[wallet] = f"told {told}, found {found}"
        return wrong

    def _run(self, wallet: str) -> None:
        with httpx.Client(base_url=self._url, timeout=_TIMEOUT_S) as http:
            while not self._stopping.wait(_PAUSE_S):
                self._debit(http, wallet)

    def _debit(self, http: httpx.Client, wallet: str) -> None:
        began = time.monotonic()
        key = new_id()
        while (failure := _failure_of(http, wallet, key)) is not None:
            with self._lock:
                self.failures[failure] += 1
                self.failed_at.append(time.monotonic())
                self.given_up += time.monotonic() - began > _TIMEOUT_S
            if time.monotonic() - began > _TIMEOUT_S:
                return
            time.sleep(_RETRY_S)
        with self._lock:
            self._acknowledged[wallet] += 1
            self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - began)


def _failure_of(http: httpx.Client, wallet: str, key: str) -> str | None:
    """Why one attempt failed; None if it succeeded."""
    try:
        answer = http.post(
            f"/v1/wallet/{wallet}/transfers/debit",
            json={"amount": "1.00", "status": "completed"},
            headers={"Idempotency-Key": key},
        )
    except httpx.TransportError as error:
        return type(error).__name__
    if answer.status_code == 201:
        return None
    kind = answer.headers.get("content-type")
    return f"{answer.status_code} {answer.text[:120]} ({kind})"


@contextmanager
def steady_load(url: str, *, clients: int = 8, warm_up: int = 100) -> Iterator[Load]:
    """Load that is under way while this lasts."""
    load = Load(url, clients=clients)
    load.start()
    try:
        load.go_on_until(warm_up)
        yield load
    finally:
        load.stop()
