"""NDJSON: lines of any length in any chunks, and clients that read late or never."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import chain, repeat
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from serve_app.routes import ndjson
from tests.support.http_side import HttpSide, http_side

_WAIT_S = 5.0


@pytest.fixture
async def side() -> AsyncIterator[HttpSide]:
    async with http_side() as running:
        yield running


# -- lines -----------------------------------------------------------------------------------------


async def lines_of(
    chunks: Iterable[bytes], *, line_max: int = 8, portion: int = 2
) -> list[list[bytes | None]]:
    async def coming() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [
        lines
        async for lines in ndjson.read_lines(coming(), line_bytes_max=line_max, portion_max=portion)
    ]


async def test_lines_come_as_they_are_complete_in_portions() -> None:
    assert await lines_of([b"a\nb\nc\nd", b"d\n", b"\n \ne"]) == [
        [b"a", b"b"],
        [b"c"],
        [b"dd"],
        [b"e"],
    ]


async def test_a_line_at_the_bound_is_taken() -> None:
    assert await lines_of([b"1234", b"5678", b"\n"]) == [[b"12345678"]]


_BODY = b"a\n123456789\nb\n" + b"x" * 40 + b"\n\n \nc\n" + b" " * 9 + b"\n12345678\n" + b"y" * 9
_READ = [b"a", None, b"b", None, b"c", None, b"12345678", None]


@pytest.mark.parametrize("size", [*range(1, 20), len(_BODY)])
async def test_a_line_that_is_too_long_fails_in_its_place_in_any_chunking(
    size: int,
) -> None:
    chunks = [_BODY[start : start + size] for start in range(0, len(_BODY), size)]
    portions = await lines_of(chunks)
    assert [line for lines in portions for line in lines] == _READ
    assert all(0 < len(lines) <= 2 for lines in portions)


async def test_of_a_line_that_is_too_long_nothing_is_kept() -> None:
    reader = ndjson.LineReader(line_bytes_max=8)
    for _ in range(1_000):
        assert reader.feed(b"x" * 100) == []
    assert reader.kept_bytes <= 8


# -- over the route --------------------------------------------------------------------------------


def make_line(wallet_id: str, **fields: Any) -> bytes:
    item = {"wallet_id": wallet_id, "type": "debit", "amount": "1", "status": "completed"}
    return msgspec.json.encode(item | fields) + b"\n"


@pytest.mark.parametrize("cut", ["whole", "lines", "small"])
async def test_a_line_that_is_too_long_gets_its_own_413(side: HttpSide, cut: str) -> None:
    wallet = await side.new_wallet()
    long = make_line(wallet, metadata={"a": "x" * 100_000})
    lines = [
        make_line(wallet),
        long,
        make_line(wallet),
        long,
        long,
        make_line(wallet),
        b"{" * 100_000,
    ]
    body = b"".join(lines)
    size = {"whole": len(body), "lines": 0, "small": 7_001}[cut]
    pieces = [body[start : start + size] for start in range(0, len(body), size)] if size else lines

    results = await side.stream(*pieces)

    assert [result["status"] for result in results] == [201, 413, 201, 413, 413, 201, 413]
    assert results[1]["problem"]["code"] == "body_too_large"
    assert side.minor(wallet) == 300


# -- clients that read late ------------------------------------------------------------------------


class Client:
    """A client that sends immediately and reads responses only when the test allows it."""

    def __init__(self, side: HttpSide, chunks: Iterable[bytes]) -> None:
        self._side = side
        self._chunks = iter(chunks)
        self._asked = asyncio.Event()
        self.sent = 0
        self.ten_sent = asyncio.Event()
        self.trickles = asyncio.Event()
        self.all_sent = asyncio.Event()
        self.reads = asyncio.Event()
        self.received: list[bytes] = []
        self.ended = False
        self.gone = False

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        if self.gone:
            return {"type": "http.disconnect"}
        chunk = next(self._chunks, None)
        if chunk is None:
            self.all_sent.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        self.sent += 1
        if self.sent == 10:
            self.ten_sent.set()
        if chunk.isspace():
            self.trickles.set()
            await asyncio.sleep(0.001)  # It sends slowly but never stops.
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            await self.reads.wait()
            self.received.append(message["body"])
            self.ended = not message.get("more_body", False)

    async def run(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/transfers/batch",
            "query_string": b"",
            "headers": [(b"content-type", b"application/x-ndjson")],
        }
        await self._side.application(scope, self.receive, self.send)

    @property
    def results(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in b"".join(self.received).splitlines()]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "UNREAD_MAX", 4_000)
    monkeypatch.setattr(ndjson, "UNREAD_WAIT_S", 0.05)
    monkeypatch.setattr(ndjson, "PIECE_MAX", 1_000)


@pytest.mark.usefixtures("_small")
async def test_who_sends_everything_before_reading_learns_where_the_stream_ended(
    side: HttpSide,
) -> None:
    wallet = await side.new_wallet()
    client = Client(side, [make_line(wallet)] * 1_000)

    async with asyncio.timeout(_WAIT_S), asyncio.TaskGroup() as running:
        running.create_task(client.run())
        await client.all_sent.wait()
        client.reads.set()

    *done, last = client.results
    assert client.ended
    assert {result["status"] for result in done} == {201}
    assert 0 < len(done) < 100
    assert side.minor(wallet) == len(done) * 100
    assert (last["status"], last["problem"]["code"]) == (408, "answers_not_read")
    assert last["problem"]["applied"] == "no"


@pytest.mark.usefixtures("_small")
async def test_who_sends_everything_that_fits_before_reading_gets_every_answer(
    side: HttpSide,
) -> None:
    wallet = await side.new_wallet()
    client = Client(side, [make_line(wallet)] * 8)

    async with asyncio.timeout(_WAIT_S), asyncio.TaskGroup() as running:
        running.create_task(client.run())
        await client.all_sent.wait()
        client.reads.set()

    assert [result["status"] for result in client.results] == [201] * 8


@pytest.mark.usefixtures("_small")
async def test_who_never_reads_is_given_up(side: HttpSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "GONE_S", 0.05)
    wallet = await side.new_wallet()
    client = Client(side, [make_line(wallet)] * 100)

    async with asyncio.timeout(_WAIT_S):
        await client.run()

    assert client.all_sent.is_set()
    assert not client.ended


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("reads", [False, True])
async def test_who_never_stops_sending_to_a_stream_that_ended_is_given_up(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(ndjson, "GONE_S", 0.2)
    wallet = await side.new_wallet()
    client = Client(side, chain([make_line(wallet)] * 100, repeat(b" ")))

    async with asyncio.timeout(_WAIT_S), asyncio.TaskGroup() as running:
        running.create_task(client.run())
        if reads:
            await client.trickles.wait()
            client.reads.set()

    assert client.ended == reads
    assert not reads or client.results[-1]["problem"]["code"] == "answers_not_read"


async def test_a_slow_reader_slows_the_stream_and_is_not_cut_off(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ndjson, "UNREAD_MAX", 1_000)
    wallet = await side.new_wallet()
    client = Client(side, [make_line(wallet)] * 50)
    client.reads.set()

    async with asyncio.timeout(_WAIT_S):
        await client.run()

    assert [result["status"] for result in client.results] == [201] * 50


@pytest.mark.usefixtures("_small")
async def test_a_client_that_is_gone_ends_the_stream(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    client = Client(side, [make_line(wallet)] * 1_000)

    async with asyncio.timeout(_WAIT_S), asyncio.TaskGroup() as running:
        running.create_task(client.run())
        await client.ten_sent.wait()
        client.gone = True
        client.reads.set()

    assert side.minor(wallet) == 100 * len([r for r in client.results if r["status"] == 201])


async def test_a_stream_that_ends_early_takes_the_rest_of_what_is_sent(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client that is still sending would never read the reason.
    async def revoked(_request: Request, _count: int, *, wait_max_s: float) -> None:
        from serve_app.http.problems import ProblemError

        raise ProblemError("key_invalid", "revoked")

    monkeypatch.setattr(ndjson, "continue_stream", revoked)
    wallet = await side.new_wallet()
    client = Client(side, [make_line(wallet)] * 100)
    client.reads.set()

    async with asyncio.timeout(_WAIT_S):
        await client.run()

    assert client.all_sent.is_set()
    assert [result["status"] for result in client.results] == [401]
    assert side.minor(wallet) == 0


async def test_a_bug_breaks_the_stream_instead_of_ending_it_well(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ndjson, "submit_by_wallet", broken)
    client = Client(side, [make_line(await side.new_wallet())])
    client.reads.set()

    async with asyncio.timeout(_WAIT_S):
        with pytest.raises(RuntimeError, match="a bug"):
            await client.run()

    assert not client.ended
