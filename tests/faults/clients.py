"""Careful clients over HTTP: each wants something, asks, and asks again under the same key when
it doesn't know what became of it. Every call is written down for the checker.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import httpx

from tests.faults.answers import Clocked, attempts_of, read_attempt
from tests.simulation.books import Books
from tests.simulation.requests import Wish
from verification.evidence import Attempt

_PATIENCE_S: Final = 15.0
"""Longer than a request's default deadline: the service's own answer comes first."""
_IMPATIENCE_S: Final = 0.2
_IMPATIENT_SHARE: Final = 0.03
_THINK_S: Final = 0.12
_RETRY_S_MAX: Final = 0.4
"""Shorter than Retry-After asks for: the clients also measure when the service is back."""
_PURSUED_S_MAX: Final = 120.0
_HOT_SHARE: Final = 0.3
_WALLETS_BATCHED: Final = (2, 6)

IMPATIENT: Final = "gave up after 0.2 s"
CONNECTIONS_MAX: Final = 200


class Clock:
    """The history's clock."""

    def moment(self) -> int:
        return time.monotonic_ns()


class Decided:
    """A write that was decided: which wallet, when asked first, in this call, when answered."""

    __slots__ = ("asked", "ended", "started", "wallet_id")

    def __init__(self, wallet_id: str, asked: int, attempt: Attempt) -> None:
        self.wallet_id = wallet_id
        self.asked = asked
        self.started = attempt.started
        self.ended = attempt.ended


class Load:
    """Clients with a wallet each, and one hot wallet that all of them share."""

    def __init__(self, url: str, *, name: str, seed: str, clients: int) -> None:
        self.books = Books(Clock())  # type: ignore[arg-type]  # any loop or clock will do
        self.errors: Counter[str] = Counter()
        """Calls that were not decided, by what the client saw."""
        self.decided: list[Decided] = []
        self.calls = 0
        self.abandoned = 0
        """Wishes that the client gave up without having learned their outcome, key and all."""
        self.name = name
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=_PATIENCE_S,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=30),
            trust_env=False,
        )
        self._seed = seed
        self._count = clients
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.wallets: list[str] = []

    async def start(self) -> None:
        """Open the wallets, then begin."""
        for number in range(self._count + 1):
            await _Client(self, number, Random(f"{self._seed} wallet {number}")).open_wallet()
        self.wallets = list(self.books.wallets)
        assert len(self.wallets) == self._count + 1, "a wallet could not be opened"
        for number in range(self._count):
            client = _Client(self, number, Random(f"{self._seed} client {number}"))
            self._tasks.append(asyncio.create_task(client.live(self._stopping)))

    async def stop(self) -> None:
        """End, every client with what it is doing done."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        await self._http.aclose()

    def raise_failures(self) -> None:
        """A client that fails is a bug of the test."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                task.result()

    def is_back(self, moment: int) -> bool:
        """Whether every wallet has been written to by a request sent after ``moment``."""
        return self.back_after_s(moment) is not None

    def back_after_s(self, moment: int) -> float | None:
        """How long after ``moment`` the last wallet was written to again; None: not yet."""
        firsts: dict[str, int] = {}
        for one in self.decided:
            if one.started >= moment:
                first = firsts.get(one.wallet_id, one.ended)
                firsts[one.wallet_id] = min(first, one.ended)
        if len(firsts) < len(self.wallets):
            return None
        return (max(firsts.values()) - moment) / 1e9

    def longest_s(self, since: int) -> float:
        """The longest that a client waited for a decision, of those that came after ``since``."""
        return (
            max((one.ended - one.asked for one in self.decided if one.ended > since), default=0)
            / 1e9
        )

    async def call(
        self, wishes: Sequence[Wish], *, atomic: bool, patience_s: float
    ) -> list[Attempt]:
        self.calls += 1
        path, body, headers = _request_for(wishes, atomic=atomic)
        started = time.monotonic_ns()
        answer: httpx.Response | Exception
        try:
            answer = await self._http.post(path, json=body, headers=headers, timeout=patience_s)
        except httpx.TransportError as failure:
            answer = failure
        attempts = attempts_of(wishes, Clocked(started, time.monotonic_ns()), answer)
        gave_up = isinstance(answer, httpx.ReadTimeout) and patience_s == _IMPATIENCE_S
        self.note(attempts, gave_up=gave_up)
        return attempts

    def note(self, attempts: Sequence[Attempt], *, gave_up: bool) -> None:
        self.books.add(list(attempts))
        first = attempts[0]
        if gave_up:
            self.errors[IMPATIENT] += 1
        elif first.outcome in ("unknown", "not_applied") and first.code != "batch_refused":
            applied = "" if first.outcome == "unknown" else ", not applied"
            self.errors[f"{first.status or ''} {first.code}{applied}".strip()] += 1

    async def read(self, name: str, wallet_id: str, *, min_version: int, strong: bool) -> None:
        query: dict[str, Any] = {"consistency": "strong"} if strong else {}
        if min_version:
            query["min_version"] = min_version
        started = time.monotonic_ns()
        try:
            answer = await self._http.get(f"/v1/wallet/{wallet_id}", params=query)
        except httpx.TransportError:
            return
        clocked = Clocked(started, time.monotonic_ns())
        attempt = read_attempt(
            name, wallet_id, clocked, answer, min_version=min_version, strong=strong
        )
        if attempt is not None:
            self.books.history.append(attempt)


class _Client:
    """One client."""

    def __init__(self, load: Load, number: int, random: Random) -> None:
        self._load = load
        self._number = number
        self._random = random
        self._named = 0

    async def open_wallet(self) -> None:
        name = self._name()
        await self._pursue([Wish(intent=f"w{name}", operation="create_wallet", key=f"w{name}")])

    async def live(self, stopping: asyncio.Event) -> None:
        own, hot = self._load.wallets[self._number + 1], self._load.wallets[0]
        await self._pursue([self._transfer(own, "debit", 100_000, keyed=True)])
        while not stopping.is_set():
            await asyncio.sleep(self._random.uniform(0, 2 * _THINK_S))
            wallet_id = hot if self._random.random() < _HOT_SHARE else own
            if self._random.random() < 0.12:
                await self._read(wallet_id)
            elif self._random.random() < 0.15:
                count = self._random.randint(*_WALLETS_BATCHED)
                await self._pursue(self._wishes(wallet_id, count))
            else:
                await self._pursue(self._wishes(wallet_id, 1))

    def _name(self) -> str:
        self._named += 1
        return f"{self._load.name}-{self._number}-{self._named}"

    def _wishes(self, wallet_id: str, count: int) -> list[Wish]:
        """Of one request: all with keys, or none, so that it can be repeated as a whole or not."""
        keyed = self._random.random() < 0.7
        return [self._wish(wallet_id, keyed=keyed) for _ in range(count)]

    def _wish(self, wallet_id: str, *, keyed: bool) -> Wish:
        random = self._random
        pending = self._load.books.pending_of(wallet_id)
        if pending and random.random() < 0.35:
            name = self._name()
            return Wish(
                intent=name,
                operation=random.choice(("complete", "revert")),
                wallet_id=wallet_id,
                transfer_id=random.choice(pending),
                key=f"key-{name}" if keyed else "",
            )
        kind = random.choice(("debit", "debit", "credit"))
        return self._transfer(wallet_id, kind, random.randint(1, 500), keyed=keyed)

    def _transfer(self, wallet_id: str, kind: str, amount: int, *, keyed: bool) -> Wish:
        name = self._name()
        return Wish(
            intent=name,
            operation=kind,  # type: ignore[arg-type]  # one of them
            wallet_id=wallet_id,
            amount=amount,
            pending=self._random.random() < 0.4,
            key=f"key-{name}" if keyed else "",
        )

    async def _read(self, wallet_id: str) -> None:
        strong = self._random.random() < 0.4
        version = self._load.books.version_of(wallet_id)
        min_version = version if self._random.random() < 0.5 else 0
        await self._load.read(self._name(), wallet_id, min_version=min_version, strong=strong)

    async def _pursue(self, wishes: list[Wish]) -> None:
        """Ask until there is an answer, as long as asking again is safe."""
        several = len(wishes) > 1
        atomic = several and self._random.random() < 0.5
        asked = time.monotonic_ns()
        number = 0
        while wishes:
            impatient = self._random.random() < _IMPATIENT_SHARE
            patience_s = _IMPATIENCE_S if impatient else _PATIENCE_S
            attempts = await self._load.call(wishes, atomic=atomic, patience_s=patience_s)
            self._note_decided(asked, attempts)
            again = [
                wish
                for wish, attempt in zip(wishes, attempts, strict=True)
                if attempt.code != "batch_refused"
                and (
                    attempt.outcome == "not_applied" or (attempt.outcome == "unknown" and wish.key)
                )
            ]
            # A batch is asked for again as it was, or not at all.
            wishes = again if len(again) == len(wishes) else []
            if wishes and time.monotonic_ns() - asked > _PURSUED_S_MAX * 1e9:
                self._load.abandoned += len(wishes)
                return
            if wishes:
                number += 1
                longest = min(_RETRY_S_MAX, 0.05 * 2**number)
                await asyncio.sleep(self._random.uniform(0, longest))

    def _note_decided(self, asked: int, attempts: Sequence[Attempt]) -> None:
        first = attempts[0]
        if first.wallet_id and first.outcome in ("acknowledged", "refused"):
            self._load.decided.append(Decided(first.wallet_id, asked, first))


def _request_for(wishes: Sequence[Wish], *, atomic: bool) -> tuple[str, Any, dict[str, str]]:
    """Path, body and headers."""
    first = wishes[0]
    if len(wishes) > 1:
        items = [_item(wish) for wish in wishes]
        path = f"/v1/wallet/{first.wallet_id}/transfers/batch"
        return path, {"items": items, "atomic": atomic}, {}
    headers = {"Idempotency-Key": first.key} if first.key else {}
    if first.operation == "create_wallet":
        return "/v1/wallet", {"reference_id": first.intent}, headers
    base = f"/v1/wallet/{first.wallet_id}/transfers"
    if first.operation in ("complete", "revert"):
        return (
            f"{base}/{first.transfer_id}/{first.operation}",
            {"reference_id": first.intent},
            headers,
        )
    body = {"amount": _money(first), "status": _status(first), "reference_id": first.intent}
    return f"{base}/{first.operation}", body, headers


def _item(wish: Wish) -> dict[str, Any]:
    item: dict[str, Any] = {"reference_id": wish.intent}
    if wish.key:
        item["idempotency_key"] = wish.key
    if wish.operation in ("complete", "revert"):
        return item | {wish.operation: wish.transfer_id}
    return item | {"type": wish.operation, "amount": _money(wish), "status": _status(wish)}


def _money(wish: Wish) -> str:
    return f"{wish.amount // 100}.{wish.amount % 100:02d}"


def _status(wish: Wish) -> str:
    return "pending" if wish.pending else "completed"
