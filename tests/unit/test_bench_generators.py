"""The Python load generator: what it sends and counts, and how it measures latency."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bench.generators import python
from bench.generators.keyed import KeyedLoad
from bench.generators.latency import Latencies, percentile
from bench.generators.load_spec import LoadSpec
from bench.generators.python import Generator
from bench.generators.request_script import (
    RequestScript,
    RequestTemplate,
    ResponseMode,
    read_templates,
)
from bench.generators.requests import RequestSource, encode
from tests.support.waiting import until

URL = "http://127.0.0.1:8089"
WALLET = "01a20661-b79b-7859-b245-d1cdb37fd592"
TRANSFER = "01a20661-b79b-7859-b245-d1cdb37fd593"


def test_a_request_script_is_read_as_it_was_written(tmp_path: Path) -> None:
    templates = [
        RequestTemplate(method="POST", path="/a", body='{"amount":"1.00"}', has_key=True),
        RequestTemplate(method="GET", path="/b"),
    ]
    RequestScript(templates=templates).write(tmp_path / "script")
    assert read_templates(tmp_path / "script") == templates


def test_a_template_of_several_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="one line"):
        RequestTemplate(method="POST", path="/a", body="{\n}")


def test_percentiles_are_exact_by_nearest_rank() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 99) == 7.0
    assert percentile([], 99) == 0.0


def test_latencies_are_reported_in_milliseconds() -> None:
    latencies = Latencies()
    for seconds in (0.003, 0.001, 0.002):
        latencies.add(seconds)
    summary = latencies.summary()
    assert (summary.p50_ms, summary.max_ms) == (2.0, 3.0)


def test_a_request_names_host_length_and_type_of_its_body() -> None:
    request = encode(RequestTemplate(method="POST", path="/x", body="{}"), URL, ["X-A: b"])
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n") == [
        b"POST /x HTTP/1.1",
        b"Host: 127.0.0.1:8089",
        b"X-A: b",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]


def test_every_request_with_a_key_has_one_of_its_own() -> None:
    template = RequestTemplate(method="POST", path="/x", body="{}", has_key=True)
    source = RequestSource([template], url=URL, key_prefix="run-")
    assert [b"Idempotency-Key: run-%d\r\n" % n in source.next() for n in (1, 2)] == [True, True]


def test_what_was_created_is_settled_before_more_is_created() -> None:
    source = RequestSource(
        [RequestTemplate(method="POST", path="/create")], url=URL, mode=ResponseMode.SETTLE
    )
    source.note(201, f'{{"id":"{TRANSFER}","wallet_id":"{WALLET}","type":"debit"}}'.encode())
    path = f"/v1/wallet/{WALLET}/transfers/{TRANSFER}/complete"
    assert source.next().startswith(f"POST {path} HTTP".encode())
    assert source.next().startswith(b"POST /create HTTP")


@asynccontextmanager
async def service(answers: list[tuple[bytes, float]]) -> AsyncIterator[str]:
    """Answers each request with the next of ``answers``: bytes, after seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Content-Length: 2" in head:
                await reader.readexactly(2)
            answer, wait_s = answers.pop(0)
            await asyncio.sleep(wait_s)
            if not answer:
                break
            half = len(answer) // 2
            writer.write(answer[:half])
            await asyncio.sleep(0)
            writer.write(answer[half:])

    handlers: list[asyncio.Task[None]] = []

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.append(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await serve(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()
        await asyncio.gather(*handlers)


def answer_of(status: str, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def generator(
    url: str,
    *,
    mode: ResponseMode = ResponseMode.PLAIN,
    rate: float | None = None,
    requests_max: int | None = None,
) -> Generator:
    load = LoadSpec(
        url=url,
        script_file="",
        mode=mode,
        connections=1,
        duration_s=0.2,
        key_prefix="",
        rate=rate,
    )
    source = RequestSource(
        [RequestTemplate(method="POST", path="/x", body="{}")], url=url, mode=mode
    )
    return Generator(load, source, requests_max=requests_max)


async def test_answers_are_counted_by_status_and_items_by_outcome() -> None:
    body = (
        b'{"items":[{"status":201,"transfer":{}},'
        b'{"status":409,"problem":{"type":"/problems/insufficient_funds","title":"No"}}]}'
    )
    answers = [(answer_of("200 OK", body), 0.0), (answer_of("429 Too Many"), 0.0)]
    async with service(answers) as url:
        result = await generator(url, mode=ResponseMode.ITEMS, requests_max=2).run()
    assert dict(result.statuses) == {"200": 1, "429": 1}
    assert (result.items_accepted, result.items_refused) == (1, 1)
    assert result.accepted == 1
    assert result.errors == {"429": 1, "items": 1, "items: insufficient_funds": 1}


async def test_a_connection_that_dies_with_a_request_is_an_error() -> None:
    async with service([(answer_of("201 Created"), 0.0), (b"", 0.0)]) as url:
        result = await generator(url, requests_max=2).run()
    assert (result.accepted, result.socket_errors) == (1, 1)


async def test_a_stall_is_felt_by_every_request_that_was_due_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The point of an open loop: 10 requests in 200 ms, and the first answer takes 150 ms."""
    monkeypatch.setattr(python, "_clock", asyncio.get_running_loop().time)
    created = answer_of("201 Created")
    async with service([(created, 0.15), *[(created, 0.0)] * 9]) as url:
        result = await generator(url, rate=49.0).run()
    assert result.accepted == 10
    assert result.latency.max_ms >= 150
    assert result.latency.p50_ms >= 20  # a closed loop would have reported less than 2 ms


async def test_nothing_is_sent_on_a_connection_that_the_server_will_close() -> None:
    """A balancer that reloads says so with a response; a later request would not be answered."""
    requests_by_connection: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(requests_by_connection)
        requests_by_connection.append(0)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"}"):
                requests_by_connection[number] += 1
                writer.write(
                    b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                )
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        load = KeyedLoad(f"http://127.0.0.1:{port}", [WALLET], rate=400)
        load.start()
        await until(lambda: load.acknowledged[WALLET] >= 50)
        await asyncio.to_thread(load.stop)

    assert max(requests_by_connection) == 1
    assert all(outcome.failures == () for outcome in load.outcomes)
