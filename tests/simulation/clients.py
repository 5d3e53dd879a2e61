"""Careful clients: they want something, ask for it, and ask again under the same key when in doubt.

Each keeps its books: every call it makes becomes an `Attempt` of the history.
"""

import asyncio
from typing import Final

from tests.simulation.books import Books
from tests.simulation.chance import Dice
from tests.simulation.loop import Process
from tests.simulation.requests import Wish, attempts_of, submission_for
from tests.simulation.world import World
from verification.evidence import Attempt
from wallet.ids import WalletId

_ATTEMPTS_MAX: Final = 8


class Client:
    """One client of the service."""

    def __init__(self, world: World, books: Books, number: int) -> None:
        self._world = world
        self._books = books
        self._number = number
        self._plan = world.plan
        self._dice = Dice(f"client {number} {world.plan.seed}")
        self._process: Process = world.client(f"client-{number}")
        self._wishes = 0

    def start(self) -> "asyncio.Task[None]":
        return self._process.start(self._live())

    async def _live(self) -> None:
        for _ in range(self._plan.operations):
            await asyncio.sleep(self._dice.between(0.0, 2 * self._plan.think_s))
            if len(self._books.wallets) < self._plan.wallets:
                await self._pursue([self._wish_for_wallet()])
            elif self._dice.happens(0.12):
                await self._read()
            else:
                await self._pursue(self._wishes_for_money())

    # -- wishing -----------------------------------------------------------------------------------

    def _name(self) -> str:
        self._wishes += 1
        return f"c{self._number}-{self._wishes}"

    def _key(self, name: str) -> str:
        return f"key-{name}" if self._dice.happens(self._plan.keyed_share) else ""

    def _wish_for_wallet(self) -> Wish:
        name = self._name()
        return Wish(intent=name, operation="create_wallet", key=self._key(name))

    def _wishes_for_money(self) -> list[Wish]:
        wallet_id = self._dice.choose(self._books.wallets)
        if not self._dice.happens(0.15):
            return [self._wish(wallet_id)]
        return [self._wish(wallet_id) for _ in range(self._dice.count(2, 4))]

    def _wish(self, wallet_id: str) -> Wish:
        name = self._name()
        dice = self._dice
        pending = self._books.pending_of(wallet_id)
        if pending and dice.happens(0.35):
            operation = "complete" if dice.happens(0.5) else "revert"
            return Wish(
                intent=name,
                operation=operation,  # type: ignore[arg-type]  # one of them
                wallet_id=wallet_id,
                transfer_id=dice.choose(pending),
                key=self._key(name),
            )
        reused = self._books.key_to_reuse(wallet_id) if dice.happens(0.04) else ""
        return Wish(
            intent=name,
            operation="debit" if dice.happens(self._plan.debit_share) else "credit",
            wallet_id=wallet_id,
            amount=dice.count(1, 500),
            pending=dice.happens(0.5),
            key=reused or self._key(name),
        )

    # -- asking ---------------------------------------------------------------------------------

    async def _pursue(self, wishes: list[Wish]) -> None:
        """Ask until there is an answer, as long as asking again is safe."""
        atomic = len(wishes) > 1 and self._dice.happens(0.5)
        for number in range(_ATTEMPTS_MAX):
            attempts = await self._ask(wishes, atomic=atomic)
            self._books.add(attempts)
            outcomes = {attempt.outcome for attempt in attempts}
            if outcomes <= {"acknowledged", "refused"}:
                return
            wishes = [
                wish
                for wish, attempt in zip(wishes, attempts, strict=True)
                if attempt.outcome == "not_applied" or (attempt.outcome == "unknown" and wish.key)
            ]
            if not wishes or (atomic and "unknown" not in outcomes):
                return
            await asyncio.sleep(self._dice.between(0.0, 0.1 * 2**number))

    async def _ask(self, wishes: list[Wish], *, atomic: bool) -> list[Attempt]:
        world = self._world
        deployment = self._dice.choose(world.deployments)
        ingress, dispatcher = deployment.ingress, deployment.dispatcher
        # Requests of one batch may end at different times.
        timeout_s = self._plan.request_timeout_s * self._dice.choose((0.03, 0.1, 1.0, 1.0))
        submission = submission_for(wishes, self._dice, timeout_s=timeout_s, atomic=atomic)
        started = world.loop.moment()
        reply = None
        if ingress is not None and dispatcher is not None:
            reply = await world.answer_or_none(
                self._process,
                ingress,
                lambda: dispatcher.submit(submission),
                timeout_s=self._plan.client_timeout_s,
            )
        return attempts_of(wishes, reply, started, world.loop.moment())

    async def _read(self) -> None:
        world = self._world
        wallet_id = self._dice.choose(self._books.wallets)
        strong = self._dice.happens(0.4)
        min_version = self._books.version_of(wallet_id) if self._dice.happens(0.5) else 0
        deployment = self._dice.choose(world.deployments)
        ingress, queries = deployment.ingress, deployment.queries
        if ingress is None or queries is None:
            return
        started = world.loop.moment()
        view = await world.answer_or_none(
            self._process,
            ingress,
            lambda: queries.wallet(WalletId(wallet_id), min_version=min_version, strong=strong),
            timeout_s=self._plan.client_timeout_s,
        )
        if view is not None and view.version >= min_version:
            self._books.add_read(
                self._name(), view, started, strong=strong, min_version=min_version
            )
