"""Steady load from its own thread, which counts failed, lost and duplicated requests.

For tests and benchmarks that change the service under load. Throughput is measured with
`bench.generators`, which never retry.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Final
from uuid import uuid4

import httpx
import msgspec

from deploy.local.background_thread import BackgroundThread
from tests.simulation.fault_probabilities import SeededRandom
from tests.support.http_transport import HttpTransport, attempts_from, request_for
from tests.support.load_client import (
    CallTiming,
    LoadClient,
    RequestedOperation,
    RetryPolicy,
    failure_in,
)
from verification.facts import ClientCall

_RETRY: Final = RetryPolicy(wait_s=0.05, wait_max_s=0.05, give_up_s=30.0)
_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05
_PAUSE_S: Final = 0.02
"""Pause between a client's requests: enough load to notice faults, not to saturate the machine."""


class RequestOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One request that succeeded. Times of the monotonic clock."""

    due_s: float
    took_s: float
    """From its scheduled time to its success, retries included."""
    failures: tuple[str, ...]
    """Reasons of the retries."""
    wallet_id: str = ""


class SteadyLoad:
    """Clients that debit 1.00 into their own wallets, one request at a time.

    Failed requests are counted in ``failures`` and retried under their key. So each wallet's
    balance must equal what the responses reported.

    ``interval_s``: fixed interval between a client's requests (open loop); None: the next one is
    due ``pause_s`` after the last response.
    """

    def __init__(
        self,
        url: str,
        *,
        clients: int = 8,
        wallets_per_client: int = 1,
        pause_s: float = _PAUSE_S,
        interval_s: float | None = None,
    ) -> None:
        self.outcomes: list[RequestOutcome] = []
        self.failures: Counter[str] = Counter()
        self.longest_wait_s = 0.0
        """Latencies, from the scheduled time of a request to its success."""
        self.replayed = 0
        """First attempts that were answered as replays."""
        self.calls: list[ClientCall] = []
        """Every attempt, the wallets' creation included, for `tests.support.checker`."""
        self.given_up = 0
        """Requests that never succeeded: their outcome is unknown."""
        self._url = url
        self._pause_s = pause_s
        self._interval_s = interval_s
        self._acknowledged: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._running: BackgroundThread[None] | None = None
        with self._http() as http:
            self._wallets = [
                [self._new_wallet(http) for _ in range(wallets_per_client)] for _ in range(clients)
            ]

    @property
    def clients(self) -> int:
        return len(self._wallets)

    @property
    def wallets(self) -> list[str]:
        return [wallet for wallets in self._wallets for wallet in wallets]

    @property
    def acknowledged(self) -> int:
        return self._acknowledged.total()

    def acknowledged_in(self, wallet: str) -> int:
        return self._acknowledged[wallet]

    def start(self) -> None:
        self._running = BackgroundThread(lambda: asyncio.run(self._run()))

    def stop(self) -> None:
        """Return once every client has finished its request.

        Raises the exception of a client, which is a bug of the test.
        """
        self._stopping.set()
        if self._running is not None:
            self._running.result()

    def go_on_until(self, acknowledged: int, *, timeout_s: float = 60.0) -> None:
        """Wait until so many requests have succeeded."""
        deadline = time.monotonic() + timeout_s
        while self.acknowledged < acknowledged:
            assert time.monotonic() < deadline, f"{self.acknowledged} of {acknowledged}"
            time.sleep(_POLL_S)

    def wait_for_each(self, more: int, *, timeout_s: float) -> None:
        """Wait until every wallet has been written to so many times more."""
        goal = {wallet: self._acknowledged[wallet] + more for wallet in self.wallets}
        deadline = time.monotonic() + timeout_s
        while any(self._acknowledged[wallet] < number for wallet, number in goal.items()):
            assert time.monotonic() < deadline, "no more writes to a wallet"
            time.sleep(_POLL_S)

    def lost_or_duplicated(self) -> dict[str, str]:
        """Wallets whose balance differs from what the responses reported."""
        wrong = {}
        with self._http() as http:
            for wallet in self.wallets:
                expected, found = f"{self._acknowledged[wallet]}.00", _balance(http, wallet)
                if found != expected:
                    wrong[wallet] = f"expected {expected}, found {found}"
        return wrong

    def _new_wallet(self, http: httpx.Client) -> str:
        intent = str(uuid4())
        creation = [RequestedOperation(intent=intent, operation="create_wallet", key=intent)]
        path, body, headers = request_for(creation, atomic=False)
        started = time.monotonic_ns()
        response = http.post(path, json=body, headers=headers).raise_for_status()
        self.calls += attempts_from(creation, CallTiming(started, time.monotonic_ns()), response)
        return str(response.json()["id"])

    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=_TIMEOUT_S, trust_env=False)

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self.clients, max_keepalive_connections=self.clients)
        async with httpx.AsyncClient(base_url=self._url, limits=limits, trust_env=False) as http:
            transport = HttpTransport(http, timeout_s=lambda: _TIMEOUT_S)
            await asyncio.gather(
                *(self._run_client(transport, number) for number in range(self.clients))
            )

    async def _run_client(self, transport: HttpTransport, number: int) -> None:
        first_s = (self._interval_s or 0.0) * number / self.clients
        due_s = (
            time.monotonic() + first_s
        )  # Staggered, so that no two requests are due at the same time.
        for wallet in cycle(self._wallets[number]):
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if self._stopping.is_set():
                return
            await self._debit(transport, wallet, due_s)
            if self._interval_s is None:
                due_s = time.monotonic() + self._pause_s
            else:
                due_s += self._interval_s

    async def _debit(self, transport: HttpTransport, wallet: str, due_s: float) -> None:
        attempts: list[ClientCall] = []

        def record(made: Sequence[ClientCall], _asked: int) -> None:
            attempts.extend(made)
            self.calls.extend(made)
            self.failures.update(filter(None, map(_failure_in, made)))

        intent = str(uuid4())
        debit = RequestedOperation(
            intent=intent, operation="debit", wallet_id=wallet, amount=100, key=intent
        )
        client = LoadClient(transport, record, SeededRandom(intent), _RETRY, time.monotonic_ns)
        await client.pursue([debit])
        if attempts[-1].outcome != "acknowledged":
            self.given_up += 1
            return
        took_s = time.monotonic() - due_s
        self._acknowledged[wallet] += 1
        self.replayed += attempts[0].replayed
        self.longest_wait_s = max(self.longest_wait_s, took_s)
        failures = tuple(filter(None, map(_failure_in, attempts)))
        self.outcomes.append(
            RequestOutcome(due_s=due_s, took_s=took_s, failures=failures, wallet_id=wallet)
        )


def _failure_in(attempt: ClientCall) -> str | None:
    """Debits are never refused, so a refusal counts as a failure."""
    if attempt.outcome == "refused":
        return f"{attempt.status} {attempt.code}"
    return failure_in(attempt)


def _balance(http: httpx.Client, wallet: str) -> str:
    answer = http.get(f"/v1/wallet/{wallet}", params={"consistency": "strong"})
    return str(answer.raise_for_status().json()["balance"])


@contextmanager
def steady_load(
    url: str,
    *,
    clients: int = 8,
    warm_up: int = 100,
    warm_up_s: float = 60.0,
    pause_s: float = _PAUSE_S,
) -> Iterator[SteadyLoad]:
    """Run load in this context, after ``warm_up`` requests, which take at most ``warm_up_s``."""
    load = SteadyLoad(url, clients=clients, pause_s=pause_s)
    load.start()
    try:
        load.go_on_until(warm_up, timeout_s=warm_up_s)
        yield load
    finally:
        load.stop()


def assert_nothing_lost(load: SteadyLoad) -> None:
    """Assert that every request succeeded eventually and took effect exactly once."""
    assert load.given_up == 0
    assert load.lost_or_duplicated() == {}
