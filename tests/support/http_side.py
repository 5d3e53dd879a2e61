"""The HTTP API on an in-process shard with an in-memory journal: everything but the servers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.journal.memory import MemoryJournal
from actors.rpc.messages import (
    Failure,
    FailureCode,
    RequestResult,
    decode_submissions,
    encode_replies,
)
from actors.shard.shard import Shard
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from tests.support.shards import shard_in_memory
from wallet.commands import CommandRequest
from wallet.ids import WalletId

Fails = Callable[[CommandRequest], Failure | None]

LIMITS = DispatcherLimits(
    shard_count=1,
    ingress_queue_max=100_000,
    ingress_wallet_queue_max=100_000,
    shard_calls_in_flight_max=2,
    call_commands_max=1_000,
    call_wallet_commands_max=1_000,
    shard_unreachable_timeout_s=60.0,
)

UNAVAILABLE = Failure(code=FailureCode.UNAVAILABLE, detail="injected", applied="no")
LATE = Failure(code=FailureCode.DEADLINE_EXCEEDED, detail="injected", applied="unknown")
OVERLOADED = Failure(code=FailureCode.OVERLOADED, detail="injected", applied="no")


class ShardInProcess:
    """Implements `ShardTransport`. ``fails`` selects requests that never reach the shard;
    ``loses``, requests that are decided there but whose responses are lost."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.requests: list[CommandRequest] = []
        """Requests that reached the shard."""
        self.fails: Fails = lambda _: None
        self.loses: Fails = lambda _: None

    async def call(self, _shard: int, payload: bytes) -> bytes:
        replies = [await self._submit(one) for one in decode_submissions(payload)]
        return encode_replies(replies)

    async def _submit(self, request: CommandRequest) -> RequestResult:
        if (failure := self.fails(request)) is not None:
            return failure
        self.requests.append(request)
        (reply,) = await self._shard.submit([request])
        if (failure := self.loses(request)) is not None:
            return failure
        return reply


class HttpSide:
    """A client of the routes, with the transport and journal behind them."""

    def __init__(self, journal: MemoryJournal, shard: Shard, settings: Settings) -> None:
        self.journal = journal
        self.transport = ShardInProcess(shard)
        self.application = create_application(
            Dependencies(
                settings=settings,
                dispatcher=Dispatcher(self.transport, LIMITS),
                queries=None,  # type: ignore[arg-type]  # not reached
                probes={},
            )
        )
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.application), base_url="http://service"
        )

    async def new_wallet(self, **fields: Any) -> WalletId:
        answer = await self.http.post("/v1/wallet", json=fields)
        assert answer.status_code == 201, answer.text
        return WalletId(answer.json()["id"])

    async def many(self, *items: Any, key: str | None = None, **headers: str) -> httpx.Response:
        """POST a batch over many wallets."""
        return await self.http.post(
            "/v1/transfers/batch", json={"items": items}, headers=_headers(key, headers)
        )

    async def batch(
        self, wallet_id: WalletId, *items: Any, key: str | None = None, atomic: bool = False
    ) -> httpx.Response:
        """POST a batch of one wallet."""
        return await self.http.post(
            f"/v1/wallet/{wallet_id}/transfers/batch",
            json={"items": items, "atomic": atomic},
            headers=_headers(key, {}),
        )

    async def stream(self, *chunks: bytes) -> list[Any]:
        """POST NDJSON in these chunks; returns the decoded results."""

        async def body() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        answer = await self.http.post(
            "/v1/transfers/batch",
            content=body(),
            headers={"Content-Type": "application/x-ndjson"},
        )
        assert answer.status_code == 200, answer.text
        return [msgspec.json.decode(line) for line in answer.content.splitlines()]

    def minor(self, wallet_id: WalletId) -> int:
        """The wallet's balance in the journal, in minor units."""
        return self.journal.database.wallets[wallet_id].balance


def _headers(key: str | None, headers: dict[str, str]) -> dict[str, str]:
    return headers | ({} if key is None else {"Idempotency-Key": key})


@asynccontextmanager
async def http_side(**settings: Any) -> AsyncIterator[HttpSide]:
    """A running HTTP side."""
    journal = MemoryJournal()
    async with shard_in_memory(journal) as running:
        side = HttpSide(journal, running.shard, Settings(_env_file=None, **settings))
        async with side.http:
            yield side
