"""Pull requests whose responses are lost, late, or for another request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from projections import pull_subscription as module
from projections.pull_subscription import PullEnded, PullSubscription


class FakeClient:
    """Records requests; the test answers them."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, int], str]] = []
        self.note: Callable[[Msg], Awaitable[None]]
        self.listens = False

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> "FakeClient":
        assert subject == "inbox.*"
        self.note, self.listens = cb, True
        return self

    async def unsubscribe(self) -> None:
        self.listens = False

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        self.requests.append((subject, msgspec.json.decode(payload), reply))

    async def send(self, number: int) -> None:
        reply = f"$JS.ACK.S.C.1.{number}.{number}.1000.0"
        await self.note(Msg(_client=None, subject="numbers", reply=reply, data=b"%d" % number))

    async def end(self, request: int, status: str) -> None:
        _, _, reply = self.requests[request]
        await self.note(Msg(_client=None, subject=reply, headers={"Status": status}))


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


async def open_puller(client: Any, *, poll_s: float = 5.0) -> PullSubscription:
    puller = PullSubscription(client, stream="S", consumer="C", batch_max=2, poll_s=poll_s)
    await puller.open()
    return puller


async def begin(puller: PullSubscription) -> asyncio.Task[list[Msg]]:
    taking = asyncio.create_task(puller.fetch())
    await asyncio.sleep(0)
    return taking


def numbers(messages: list[Msg]) -> list[int]:
    return [int(message.data) for message in messages]


async def test_a_request_is_renewed_once_it_has_brought_what_it_asked_for(
    client: FakeClient,
) -> None:
    puller = await open_puller(client, poll_s=2.5)
    taking = await begin(puller)
    assert client.requests == [
        ("$JS.API.CONSUMER.MSG.NEXT.S.C", {"batch": 2, "expires": 2_500_000_000}, "inbox.1")
    ]
    await client.send(1)
    assert numbers(await taking) == [1]
    assert len(client.requests) == 1
    await client.send(2)
    assert numbers(await puller.fetch()) == [2]
    assert [reply for _, _, reply in client.requests] == ["inbox.1", "inbox.2"]
    await puller.close()
    assert not client.listens


async def test_the_end_of_an_earlier_request_is_not_taken_for_this_one_s(
    client: FakeClient,
) -> None:
    puller = await open_puller(client)
    taking = await begin(puller)
    await client.send(1)
    await client.send(2)
    assert numbers(await taking) == [1, 2]
    taking = await begin(puller)
    await client.end(0, "408")
    await asyncio.sleep(0)
    assert not taking.done()
    await client.end(1, "408")
    assert await taking == []


async def test_a_heartbeat_ends_nothing(client: FakeClient) -> None:
    puller = await open_puller(client)
    taking = await begin(puller)
    await client.end(0, "100")
    await asyncio.sleep(0)
    assert not taking.done()
    await client.send(1)
    assert numbers(await taking) == [1]


async def test_a_server_that_does_not_even_end_a_request_is_away(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.02)
    puller = await open_puller(client, poll_s=0.01)
    with pytest.raises(PullEnded, match="does not respond"):
        await asyncio.wait_for(puller.fetch(), 5)


async def test_what_came_before_the_end_is_taken_first(client: FakeClient) -> None:
    puller = await open_puller(client)
    taking = await begin(puller)
    await client.send(1)
    await client.end(0, "409")
    assert numbers(await taking) == [1]
    with pytest.raises(PullEnded):
        await asyncio.wait_for(puller.fetch(), 5)


@pytest.mark.parametrize("status", ["409", "503"])
async def test_any_other_status_ends_it(client: FakeClient, status: str) -> None:
    puller = await open_puller(client)
    taking = await begin(puller)
    await client.end(0, status)
    with pytest.raises(PullEnded, match=status):
        await asyncio.wait_for(taking, 5)
