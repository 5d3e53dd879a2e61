"""Clients of a service that is upgraded: each request goes to a replica of one of the releases."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
import msgspec

from tests.simulation.fault_probabilities import SeededRandom
from tests.support.client_state import SharedClientState
from tests.support.http_transport import HttpTransport
from tests.support.load_client import (
    LoadClient,
    RequestedOperation,
    RetryPolicy,
    Transport,
    failure_in,
)
from tests.support.operation_source import OperationMix, OperationSource
from verification.facts import ClientCall

_RETRY: Final = RetryPolicy(wait_s=0.02, wait_max_s=0.1, give_up_s=20.0)
_THINK_S: Final = 0.06
_HOT_SHARE: Final = 0.3
_READ_SHARE: Final = 0.15
_REPEAT_SHARE: Final = 0.2
"""Of requests with a key: sent again, through another replica."""

KNOWN_TO_BOTH: Final = OperationMix(
    idempotent_share=0.7,
    debit_share=0.6,
    pending_share=0.4,
    key_reuse_share=0.02,
    batch_size=(2, 6),
)
"""What both releases offer."""
WITH_NEW_FEATURES: Final = OperationMix(
    idempotent_share=0.7,
    debit_share=0.5,
    pending_share=0.6,
    key_reuse_share=0.02,
    batch_size=(2, 6),
    control_share=0.12,
    expiring_share=0.5,
    part_share=0.5,
)
WITHOUT_PARTS: Final = msgspec.structs.replace(WITH_NEW_FEATURES, part_share=0.0)
"""An old shard that settles the rest of a transfer may end: `docs/operating/upgrades.md`."""
_CONTROLS: Final = frozenset({"update", "freeze", "unfreeze", "close"})


def is_new(operation: RequestedOperation) -> bool:
    """Whether only this release knows ``operation``."""
    is_part = operation.operation == "complete" and operation.amount > 0
    return operation.operation in _CONTROLS or operation.expires_in_s > 0 or is_part


class Replica:
    """An ingress replica, to be closed."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=100)
        self.http = httpx.AsyncClient(base_url=url, limits=limits, trust_env=False, timeout=30.0)
        self.transport = HttpTransport(self.http)
        self.under_way = 0
        """Requests that it has not answered."""

    async def __aenter__(self) -> "Replica":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()


class Balancer:
    """Implements `Transport`: a replica of either release per request, by chance.

    What only this release knows goes to its replica.
    """

    def __init__(self, seed: str) -> None:
        self._random = SeededRandom(seed)
        self._old: Replica | None = None
        self._new: Replica | None = None

    def lead_to(self, *, old: Replica | None, new: Replica | None) -> None:
        """From now on."""
        self._old, self._new = old, new

    @contextmanager
    def chosen(self, *, needs_new: bool = False) -> Iterator[Replica]:
        """The replica for a request."""
        either = [one for one in (None if needs_new else self._old, self._new) if one is not None]
        replica = self._random.choose(either)
        replica.under_way += 1
        try:
            yield replica
        finally:
            replica.under_way -= 1

    async def send(
        self, operations: Sequence[RequestedOperation], *, atomic: bool
    ) -> list[ClientCall]:
        with self.chosen(needs_new=any(map(is_new, operations))) as replica:
            return await replica.transport.send(operations, atomic=atomic)

    async def read(self, wallet_id: str, *, min_version: int, strong: bool) -> ClientCall | None:
        with self.chosen() as replica:
            return await replica.transport.read(wallet_id, min_version=min_version, strong=strong)


class Load:
    """Clients with a wallet each, and one that all share."""

    def __init__(
        self,
        transport: Transport,
        *,
        name: str,
        seed: str,
        clients: int,
        mix: OperationMix,
        deposit: int,
    ) -> None:
        """``deposit``: minor units that each client puts into its wallet, and into the shared one.

        With too little of it credits are refused, and overdrafts are used.
        """
        self.name = name
        self.state = SharedClientState()
        self.mix = mix
        self.deposit = deposit
        self.failures: Counter[str] = Counter()
        """Calls without a decision, by reason."""
        self.given_up = 0
        self.calls = 0
        self._waits: list[tuple[int, float]] = []
        self._transport = transport
        self._seed = seed
        self._clients = clients
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        return self

    async def __aexit__(self, *_: object) -> None:
        """However the test has ended, no client goes on."""
        await _end(self._tasks)

    async def start(self) -> None:
        """Open the wallets and put money into them, then start the clients."""
        openers = [_Client(self, f"{self.name}w{n}", self._seed) for n in range(self._clients + 1)]
        await asyncio.gather(*(one.open_wallet() for one in openers))
        hot, *own = self.state.wallets
        assert len(own) == self._clients, "a wallet could not be opened"
        for number, wallet_id in enumerate(own):
            client = _Client(self, f"{self.name}{number}", self._seed)
            self._tasks.append(asyncio.create_task(client.run(wallet_id, hot)))

    async def stop(self) -> None:
        """After every client has finished its request."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def transport(self) -> Transport:
        return self._transport

    def longest_s(self, since: int, until: int) -> float:
        """The longest time from a request to its answer, of calls that ended in that time."""
        return max((took for ended, took in self._waits if since <= ended < until), default=0.0)

    def record(self, attempts: Sequence[ClientCall], asked: int) -> None:
        """Implements `load_client.Record`."""
        self.state.record(attempts, asked)
        first = attempts[0]
        self.calls += 1
        if (failure := failure_in(first)) is not None:
            self.failures[failure] += 1
        self._waits.append((first.ended, (first.ended - first.started) / 1e9))


class _Client:
    """One client."""

    def __init__(self, load: Load, name: str, seed: str) -> None:
        self._load = load
        self._random = random = SeededRandom(f"{seed} {name}")
        self._source = OperationSource(name, load.state, random, load.mix)
        self._client = LoadClient(load.transport(), load.record, random, _RETRY, time.monotonic_ns)

    async def open_wallet(self) -> None:
        intent = self._source.next_intent()
        await self._client.pursue(
            [RequestedOperation(intent=intent, operation="create_wallet", key=intent)]
        )

    async def run(self, own: str, hot: str) -> None:
        for wallet_id in (own, hot):
            await self._deposit(wallet_id)
        while not self._load.is_stopping:
            await asyncio.sleep(self._random.between(0.0, 2 * _THINK_S))
            wallet_id = hot if self._random.happens(_HOT_SHARE) else own
            if self._random.happens(_READ_SHARE):
                await self._read(wallet_id)
            else:
                await self._write(wallet_id)

    async def _deposit(self, wallet_id: str) -> None:
        intent = self._source.next_intent()
        deposit = RequestedOperation(
            intent=intent,
            operation="debit",
            wallet_id=wallet_id,
            amount=self._load.deposit,
            key=intent,
        )
        self._load.given_up += await self._client.pursue([deposit])

    async def _write(self, wallet_id: str) -> None:
        operations = self._source.next_request(wallet_id)
        atomic = len(operations) > 1 and self._random.happens(self._load.mix.atomic_share)
        self._load.given_up += await self._client.pursue(operations, atomic=atomic)
        if len(operations) == 1 and operations[0].key and self._random.happens(_REPEAT_SHARE):
            self._load.given_up += await self._client.pursue(operations)

    async def _read(self, wallet_id: str) -> None:
        min_version = self._load.state.version_of(wallet_id) if self._random.happens(0.5) else 0
        await self._client.read(
            wallet_id,
            self._source.next_intent,
            min_version=min_version,
            strong=self._random.happens(0.4),
        )


class BatchesOverWallets:
    """Batches and streams over several wallets; each batch is repeated under its key."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.wallets: list[str] = []
        self.paid_in = 0
        """Minor units, into each wallet."""
        self.requests = 0

    async def __aenter__(self) -> "BatchesOverWallets":
        return self

    async def __aexit__(self, *_: object) -> None:
        """However the test has ended, nothing more is sent."""
        await _end(self._tasks)

    async def start(self) -> None:
        with self._balancer.chosen() as replica:
            for _ in range(3):
                opened = await replica.http.post("/v1/wallet", json={})
                self.wallets.append(opened.raise_for_status().json()["id"])
        self._tasks.append(asyncio.create_task(self._run()))

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while not self._stopping:
            items = [
                {"wallet_id": wallet_id, "type": "debit", "amount": "0.01", "status": "completed"}
                for wallet_id in self.wallets
            ]
            await self._batch(items, key=f"batch-{self.requests}")
            await self._stream(items)
            await asyncio.sleep(_THINK_S)

    async def _batch(self, items: list[dict[str, str]], *, key: str) -> None:
        answers = []
        for _ in range(2):
            with self._balancer.chosen() as replica:
                answer = await replica.http.post(
                    "/v1/transfers/batch", json={"items": items}, headers={"Idempotency-Key": key}
                )
            answers.append(_applied(answer.raise_for_status().json()["items"]))
        assert answers[0] == answers[1], "one key, one request, one answer"
        self.paid_in += 1
        self.requests += 2

    async def _stream(self, items: list[dict[str, str]]) -> None:
        lines = b"".join(msgspec.json.encode(item) + b"\n" for item in items)
        with self._balancer.chosen() as replica:
            answer = await replica.http.post(
                "/v1/transfers/batch",
                content=lines,
                headers={"Content-Type": "application/x-ndjson"},
            )
        _applied([msgspec.json.decode(line) for line in answer.raise_for_status().iter_lines()])
        self.paid_in += 1
        self.requests += 1


def _applied(items: list[Any]) -> list[str]:
    """The transfers' ids."""
    assert all(item["status"] == 201 for item in items), items
    return [item["transfer"]["id"] for item in items]


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
