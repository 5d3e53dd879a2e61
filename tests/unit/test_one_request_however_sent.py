"""Two requests are the same for a key if their meaning is; encoding and route do not matter."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from actors.rpc.messages import Applied, BatchCommitted, KeyClaimed, RequestResult
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from tests.support.domain import WALLET_ID
from wallet.commands import ClaimKey, CommandRequest, Idempotency

OWN_ROUTE = f"/v1/wallet/{WALLET_ID}/transfers/credit"
BATCH = f"/v1/wallet/{WALLET_ID}/transfers/batch"
MANY = "/v1/transfers/batch"


class Recorder:
    """A dispatcher that accepts everything and records the requests."""

    def __init__(self) -> None:
        self.given: list[CommandRequest] = []

    def overload(self, _wallet: object) -> None:
        return None

    async def submit(self, command_request: CommandRequest) -> RequestResult:
        self.given.append(command_request)
        if isinstance(command_request.items[0].command, ClaimKey):
            return KeyClaimed(request_id="r")
        done = Applied(id=WALLET_ID, version=1, body=b"{}")
        if command_request.is_batch:
            return BatchCommitted(items=(done,) * len(command_request.items))
        return done

    async def submit_all(self, requests: Sequence[CommandRequest]) -> list[RequestResult]:
        return [await self.submit(one) for one in requests]


async def given_by(path: str, content: str, headers: dict[str, str]) -> list[CommandRequest]:
    """The part of a request that reaches the write side."""
    recorder = Recorder()
    services: Any = Dependencies(
        settings=Settings(_env_file=None),
        dispatcher=recorder,  # type: ignore[arg-type]  # has what is called of it
        queries=None,  # type: ignore[arg-type]  # not reached
        probes={},
    )
    transport: Any = httpx.ASGITransport(app=create_application(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return recorder.given


async def keys_of(
    path: str, content: str, headers: dict[str, str]
) -> list[tuple[str, Idempotency | None]]:
    """The wallet and the key of each item."""
    given = await given_by(path, content, headers)
    return [(one.wallet_id, item.idempotency) for one in given for item in one.items]


@pytest.mark.parametrize("amount", ['"10.5"', '"10.50"', '"10.500"'])
@pytest.mark.parametrize("rest", ["", ',"status":"pending","reference_id":null,"metadata":{}'])
async def test_a_transfer_is_the_same_request_on_route_batch_and_line(
    amount: str, rest: str
) -> None:
    asked = f'"amount":{amount}{rest}'
    item = f'"type":"credit",{asked},"idempotency_key":"k-1"'
    of_wallet = f'"wallet_id":"{WALLET_ID.upper()}",{item}'
    found = [
        await keys_of(OWN_ROUTE, f"{{{asked}}}", {"Idempotency-Key": "k-1"}),
        await keys_of(BATCH, f'{{"items":[{{{item}}}]}}', {}),
        await keys_of(MANY, f'{{"items":[{{{of_wallet}}}]}}', {}),
        await keys_of(MANY, f"{{{of_wallet}}}", {"Content-Type": "application/x-ndjson"}),
    ]
    plain = await keys_of(OWN_ROUTE, '{"amount":"10.5"}', {"Idempotency-Key": "k-1"})

    assert found == [plain] * len(found)


@pytest.mark.parametrize("path", [BATCH, MANY])
async def test_the_spelling_of_an_amount_makes_no_difference_to_a_batchs_key(path: str) -> None:
    wallet = f',"wallet_id":"{WALLET_ID}"' if path == MANY else ""
    first, second = [
        await given_by(
            path,
            f'{{"items":[{{"type":"credit","amount":"{amount}"{wallet}}}]}}',
            {"Idempotency-Key": "k-1"},
        )
        for amount in ("10.5", "10.50")
    ]
    keys = [[(one.idempotency, *(item.idempotency for item in one.items)) for one in first]]
    keys.append([(one.idempotency, *(item.idempotency for item in one.items)) for one in second])

    assert any(key is not None for one in keys[0] for key in one)
    assert keys[0] == keys[1]
