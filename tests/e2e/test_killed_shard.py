"""A shard that dies while requests wait: its clients see a pause, never an error, nothing twice."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.api import Api, eventually, new_id
from tests.support.running_service import RunningService

WALLETS = 16  # spread over every shard
REQUESTS_MIN = 300
GOES_ON_S = 60.0
PAUSE_MAX_S = 3.0
"""What is promised. The start of a successor takes longer than that on a busy machine: the next
shard stands in."""


class Clients:
    """One client a wallet, each sending the next debit as soon as the last one is answered."""

    def __init__(self, url: str, wallets: list[str]) -> None:
        self.answered: Counter[str] = Counter()
        self.otherwise: list[str] = []
        self.longest_wait_s = 0.0
        self.stop = asyncio.Event()
        self._http = httpx.AsyncClient(
            base_url=url, timeout=60, limits=httpx.Limits(max_connections=WALLETS)
        )
        self._tasks = [asyncio.create_task(self._send(wallet)) for wallet in wallets]

    async def _send(self, wallet: str) -> None:
        body = {"amount": "1", "status": "completed"}
        while not self.stop.is_set():
            headers = {"Idempotency-Key": new_id()}
            asked_at = time.monotonic()
            answer = await self._http.post(
                f"/v1/wallet/{wallet}/transfers/debit", json=body, headers=headers
            )
            self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - asked_at)
            self.answered[wallet] += 1
            if answer.status_code != 201 or "idempotency-replayed" in answer.headers:
                self.otherwise.append(f"{answer.status_code} {answer.text}")

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(*self._tasks)
        await self._http.aclose()


async def so(look: Callable[[], bool]) -> None:
    """Until it is so, bounded, while the clients go on."""
    await asyncio.to_thread(eventually, look, timeout_s=GOES_ON_S)


async def test_a_killed_shard_costs_its_clients_a_pause_and_nobody_a_cent(
    service: RunningService, api: Api
) -> None:
    if service.home is None:
        pytest.skip("the processes of this service are out of reach")
    wallets = [api.new_wallet() for _ in range(WALLETS)]
    clients = Clients(service.url, wallets)
    await so(lambda: clients.answered.total() >= REQUESTS_MIN)
    before = Counter(clients.answered)

    victim = service.processes("ray::ShardActor")[0]
    victim.kill()
    await asyncio.to_thread(victim.wait, 10)
    await so(lambda: all(clients.answered[one] >= before[one] + 2 for one in wallets))
    await clients.end()

    assert clients.otherwise == []
    assert clients.longest_wait_s < PAUSE_MAX_S
    for wallet in wallets:
        state = api.state(wallet)
        assert state["balance"] == f"{clients.answered[wallet]}.00"
        assert state["version"] == clients.answered[wallet] + 1
    eventually(lambda: api.get("/readyz").status_code == 200, timeout_s=60)
