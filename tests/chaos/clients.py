"""The clients of a round: load clients over HTTP, their waits and their errors."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import httpx

from tests.simulation.fault_probabilities import SeededRandom
from tests.support.client_state import SharedClientState
from tests.support.http_transport import TIMEOUT_S, HttpTransport, client_gave_up
from tests.support.load_client import LoadClient, RequestedOperation, RetryPolicy, failure_in
from tests.support.operation_source import CONTROLS_BUT_CLOSE, OperationMix, OperationSource
from verification.facts import ClientCall

_IMPATIENCE_S: Final = 0.2
_IMPATIENT_SHARE: Final = 0.03
THINK_S: Final = 0.12
_RETRY: Final = RetryPolicy(wait_s=0.1, wait_max_s=0.4, give_up_s=120.0)
"""Shorter than Retry-After: the clients also measure when the service is back."""
_HOT_SHARE: Final = 0.3
MIX: Final = OperationMix(
    idempotent_share=0.7,
    debit_share=2 / 3,
    pending_share=0.4,
    batch_size=(2, 6),
    expiring_share=0.3,
    part_share=0.3,
    refund_share=0.2,
    # A closed wallet would take nothing for the rest of the run.
    control_share=0.05,
    controls=CONTROLS_BUT_CLOSE,
)

IMPATIENT: Final = client_gave_up(_IMPATIENCE_S)
CONNECTIONS_MAX: Final = 200


class Decided:
    """A decided write: its wallet, first request, start of this call, and response time."""

    __slots__ = ("asked", "ended", "started", "wallet_id")

    def __init__(self, wallet_id: str, asked: int, attempt: ClientCall) -> None:
        self.wallet_id = wallet_id
        self.asked = asked
        self.started = attempt.started
        self.ended = attempt.ended


class Load:
    """Clients with a wallet each, and one hot wallet that all of them share."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        seed: str,
        clients: int,
        think_s: float = THINK_S,
        mix: OperationMix = MIX,
        resting: int = 0,
    ) -> None:
        """``think_s``: mean pause between a client's requests. ``resting``: see `rest`."""
        self.state = SharedClientState()
        self.errors: Counter[str] = Counter()
        """Calls without a decision, by the error that the client got."""
        self.decided: list[Decided] = []
        self.calls = 0
        self.abandoned = 0
        """Operations that the client abandoned with an unknown outcome."""
        self.name = name
        self.think_s = think_s
        self.mix = mix
        self.http = httpx.AsyncClient(
            base_url=url,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=30),
            trust_env=False,
        )
        self._seed = seed
        self._count = clients + resting
        self._resting = resting
        self._awake = asyncio.Event()
        self._awake.set()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.wallets: list[str] = []

    async def start(self) -> None:
        """Create the wallets, then start the clients."""
        for number in range(self._count + 1):
            await _Client(self, f"w{self.name}-{number}", self._seed).open_wallet()
        self.wallets = list(self.state.wallets)
        assert len(self.wallets) == self._count + 1, "a wallet could not be created"
        for number in range(self._count):
            client = _Client(self, f"{self.name}-{number}", self._seed)
            own, hot = self.wallets[number + 1], self.wallets[0]
            if number < self._resting:
                work = client.run(own, own, self._stopping, self._awake)
            else:
                work = client.run(own, hot, self._stopping)
            self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """Stop, after every client has finished its request."""
        self._stopping.set()
        self._awake.set()
        await asyncio.gather(*self._tasks)
        await self.http.aclose()

    @property
    def resting_wallets(self) -> list[str]:
        """Those of the clients that rest."""
        return self.wallets[1 : 1 + self._resting]

    def rest(self) -> None:
        """Let some clients send nothing more until `wake`, once their present request is done."""
        self._awake.clear()

    def wake(self) -> None:
        """Let them go on."""
        self._awake.set()

    def raise_failures(self) -> None:
        """Raise the exception of a failed client, which is a bug of the test."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                task.result()

    def back_after_s(self, moment: int) -> float | None:
        """Time from ``moment`` until every wallet was written to again; None: not yet."""
        firsts: dict[str, int] = {}
        for one in self.decided:
            if one.started >= moment:
                first = firsts.get(one.wallet_id, one.ended)
                firsts[one.wallet_id] = min(first, one.ended)
        if len(firsts) < len(self.wallets):
            return None
        return (max(firsts.values()) - moment) / 1e9

    def longest_s(self, since: int) -> float:
        """The longest wait for a decision, among decisions after ``since``."""
        return (
            max((one.ended - one.asked for one in self.decided if one.ended > since), default=0)
            / 1e9
        )

    def record(self, attempts: Sequence[ClientCall], asked: int) -> None:
        """Implements `load_client.Record`."""
        self.state.record(attempts, asked)
        first = attempts[0]
        if first.operation == "read":
            return
        self.calls += 1
        if (failure := failure_in(first)) is not None:
            self.errors[IMPATIENT if first.code == IMPATIENT else failure] += 1
        if first.wallet_id and first.outcome in ("acknowledged", "refused"):
            self.decided.append(Decided(first.wallet_id, asked, first))


class _Client:
    """One client."""

    def __init__(self, load: Load, name: str, seed: str) -> None:
        self._load = load
        self._random = random = SeededRandom(f"{seed} {name}")
        self._source = OperationSource(name, load.state, random, load.mix)
        transport = HttpTransport(load.http, timeout_s=self._timeout_s)
        self._client = LoadClient(transport, load.record, random, _RETRY, time.monotonic_ns)

    def _timeout_s(self) -> float:
        return _IMPATIENCE_S if self._random.happens(_IMPATIENT_SHARE) else TIMEOUT_S

    async def open_wallet(self) -> None:
        intent = self._source.next_intent()
        wallet = RequestedOperation(intent=intent, operation="create_wallet", key=intent)
        await self._client.pursue([wallet])

    async def run(
        self, own: str, hot: str, stopping: asyncio.Event, awake: asyncio.Event | None = None
    ) -> None:
        await self._deposit(own)
        while not stopping.is_set():
            await asyncio.sleep(self._random.between(0.0, 2 * self._load.think_s))
            if awake is not None:
                await awake.wait()
            wallet_id = hot if self._random.happens(_HOT_SHARE) else own
            if self._random.happens(0.12):
                await self._read(wallet_id)
            else:
                await self._write(wallet_id)

    async def _deposit(self, wallet_id: str) -> None:
        intent = self._source.next_intent()
        deposit = RequestedOperation(
            intent=intent, operation="debit", wallet_id=wallet_id, amount=100_000, key=intent
        )
        await self._client.pursue([deposit])

    async def _write(self, wallet_id: str) -> None:
        operations = self._source.next_request(wallet_id)
        atomic = len(operations) > 1 and self._random.happens(self._load.mix.atomic_share)
        self._load.abandoned += await self._client.pursue(operations, atomic=atomic)

    async def _read(self, wallet_id: str) -> None:
        strong = self._random.happens(0.4)
        min_version = self._load.state.version_of(wallet_id) if self._random.happens(0.5) else 0
        await self._client.read(
            wallet_id, self._source.next_intent, min_version=min_version, strong=strong
        )
