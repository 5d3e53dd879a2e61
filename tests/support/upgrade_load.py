"""Clients of a service that is upgraded: each request goes to a replica of one of the releases."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import httpx

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
_CONTROLS: Final = frozenset({"update", "freeze", "unfreeze", "close"})


def is_new(operation: RequestedOperation) -> bool:
    """Whether only this release knows ``operation``."""
    is_part = operation.operation == "complete" and operation.amount > 0
    return operation.operation in _CONTROLS or operation.expires_in_s > 0 or is_part


class Balancer:
    """Implements `Transport`: a replica per request, of ``old`` and ``new`` in turn or by chance.

    What only this release knows goes to its replicas.
    """

    def __init__(self, random: SeededRandom) -> None:
        self._random = random
        self._old: HttpTransport | None = None
        self._new: HttpTransport | None = None
        self._under_way: Counter[HttpTransport] = Counter()

    def lead_to(self, *, old: HttpTransport | None, new: HttpTransport | None) -> None:
        """From now on."""
        self._old, self._new = old, new

    async def send(
        self, operations: Sequence[RequestedOperation], *, atomic: bool
    ) -> list[ClientCall]:
        chosen = self._choose(needs_new=any(map(is_new, operations)))
        self._under_way[chosen] += 1
        try:
            return await chosen.send(operations, atomic=atomic)
        finally:
            self._under_way[chosen] -= 1

    async def read(self, wallet_id: str, *, min_version: int, strong: bool) -> ClientCall | None:
        chosen = self._choose(needs_new=False)
        self._under_way[chosen] += 1
        try:
            return await chosen.read(wallet_id, min_version=min_version, strong=strong)
        finally:
            self._under_way[chosen] -= 1

    def under_way(self, replica: HttpTransport) -> int:
        """Requests that ``replica`` has not answered."""
        return self._under_way[replica]

    def _choose(self, *, needs_new: bool) -> HttpTransport:
        either = [one for one in (None if needs_new else self._old, self._new) if one is not None]
        return self._random.choose(either)


class Load:
    """Clients with a wallet each, and one that all share."""

    def __init__(
        self, transport: Transport, *, name: str, seed: str, clients: int, mix: OperationMix
    ) -> None:
        self.state = SharedClientState()
        self.mix = mix
        self.failures: Counter[str] = Counter()
        """Calls without a decision, by reason."""
        self.given_up = 0
        self.calls = 0
        self._waits: list[tuple[int, float]] = []
        self._transport = transport
        self._name = name
        self._seed = seed
        self._clients = clients
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the wallets and put money into them, then start the clients."""
        openers = [_Client(self, f"{self._name}w{n}", self._seed) for n in range(self._clients + 1)]
        await asyncio.gather(*(one.open_wallet() for one in openers))
        hot, *own = self.state.wallets
        assert len(own) == self._clients, "a wallet could not be opened"
        for number, wallet_id in enumerate(own):
            client = _Client(self, f"{self._name}{number}", self._seed)
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
            intent=intent, operation="debit", wallet_id=wallet_id, amount=_DEPOSIT, key=intent
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


def replica(url: str) -> tuple[httpx.AsyncClient, HttpTransport]:
    """A client of a replica, to be closed, and the transport over it."""
    http = httpx.AsyncClient(
        base_url=url, limits=httpx.Limits(max_connections=100), trust_env=False
    )
    return http, HttpTransport(http)
