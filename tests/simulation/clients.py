"""The clients of a simulated service: load clients whose requests cross the simulated network."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from tests.simulation.fault_probabilities import SeededRandom
from tests.simulation.loop import Process
from tests.simulation.operations import attempts_of, request_for
from tests.simulation.world import World
from tests.support.client_state import SharedClientState
from tests.support.load_client import LoadClient, RequestedOperation, RetryPolicy
from tests.support.operation_source import OperationMix, OperationSource
from verification.facts import ClientCall
from wallet.ids import WalletId

_RETRY: Final = RetryPolicy(wait_s=0.1, wait_max_s=12.8, attempts_max=8)


class _SimulatedTransport:
    """Implements `Transport`: any ingress, across the simulated network."""

    def __init__(self, world: World, process: Process, random: SeededRandom) -> None:
        self._world = world
        self._process = process
        self._random = random

    async def send(
        self, operations: Sequence[RequestedOperation], *, atomic: bool
    ) -> list[ClientCall]:
        world, plan = self._world, self._world.plan
        deployment = self._random.choose(world.deployments)
        ingress, dispatcher = deployment.ingress, deployment.dispatcher
        # The requests of one batch may end at different times.
        timeout_s = plan.request_timeout_s * self._random.choose((0.03, 0.1, 1.0, 1.0))
        submission = request_for(operations, self._random, timeout_s=timeout_s, atomic=atomic)
        started = world.loop.moment()
        reply = None
        if ingress is not None and dispatcher is not None:
            reply = await world.answer_or_none(
                self._process,
                ingress,
                lambda: dispatcher.submit(submission),
                timeout_s=plan.client_timeout_s,
            )
        return attempts_of(operations, reply, started, world.loop.moment())

    async def read(self, wallet_id: str, *, min_version: int, strong: bool) -> ClientCall | None:
        world = self._world
        deployment = self._random.choose(world.deployments)
        ingress, queries = deployment.ingress, deployment.queries
        if ingress is None or queries is None:
            return None
        started = world.loop.moment()
        view = await world.answer_or_none(
            self._process,
            ingress,
            lambda: queries.wallet(WalletId(wallet_id), min_version=min_version, strong=strong),
            timeout_s=world.plan.client_timeout_s,
        )
        if view is None or view.version < min_version:
            return None
        return ClientCall(
            operation_id="",
            operation="read",
            wallet_id=view.id,
            started=started,
            ended=world.loop.moment(),
            outcome="acknowledged",
            body=msgspec.json.encode(view).decode(),
            version=view.version,
            min_version=min_version,
            strong=strong,
        )


class Client:
    """One client of the service."""

    def __init__(self, world: World, state: SharedClientState, number: int) -> None:
        plan = world.plan
        self._plan = plan
        self._state = state
        self._random = random = SeededRandom(f"client {number} {plan.seed}")
        self._process = world.client(f"client-{number}")
        mix = OperationMix(
            idempotent_share=plan.idempotent_share,
            debit_share=plan.debit_share,
            pending_share=0.5,
            key_reuse_share=0.04,
            control_share=plan.control_share,
            expiring_share=plan.expiring_share,
            part_share=plan.part_share,
            refund_share=plan.refund_share,
        )
        self._source = OperationSource(f"c{number}", state, random, mix)
        transport = _SimulatedTransport(world, self._process, random)
        self._client = LoadClient(
            transport, state.record, random, _RETRY, lambda: int(world.loop.time() * 1e9)
        )

    def start(self) -> "asyncio.Task[None]":
        return self._process.start(self._run())

    async def _run(self) -> None:
        for _ in range(self._plan.operations):
            await asyncio.sleep(self._random.between(0.0, 2 * self._plan.think_s))
            if len(self._state.wallets) < self._plan.wallets:
                await self._client.pursue([self._source.new_wallet()])
            elif self._random.happens(0.12):
                await self._read(self._random.choose(self._state.wallets))
            else:
                await self._write(self._random.choose(self._state.wallets))

    async def _write(self, wallet_id: str) -> None:
        operations = self._source.next_request(wallet_id)
        atomic = len(operations) > 1 and self._random.happens(0.5)
        await self._client.pursue(operations, atomic=atomic)

    async def _read(self, wallet_id: str) -> None:
        strong = self._random.happens(0.4)
        min_version = self._state.version_of(wallet_id) if self._random.happens(0.5) else 0
        await self._client.read(
            wallet_id, self._source.next_intent, min_version=min_version, strong=strong
        )
