"""One transfer traced end to end: HTTP, dispatch, batch, Postgres, stream, projection."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.rpc.messages import decode_submissions, encode_replies
from runtime import tracing
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from tests.support.collector import CollectedSpan, Collector, running_collector
from tests.support.read_side import queries_on, running_consumer
from tests.support.waiting import until
from tests.support.write_side import ShardUnderTest, running_shard

CLIENT_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT_SPAN = "00f067aa0ba902b7"


class OneShard:
    """A transport to an in-process shard, with the wire encoding."""

    def __init__(self, shard: ShardUnderTest) -> None:
        self._shard = shard

    async def call(self, shard: int, payload: bytes) -> bytes:
        return encode_replies(await self._shard.shard.submit(decode_submissions(payload)))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(tracing, "enabled", False)
    monkeypatch.setattr(tracing, "_tracer", None)
    with running_collector() as collector:
        monkeypatch.setenv(tracing.ENDPOINT_VARIABLE, collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector
        tracing.shut_down()


@pytest.fixture
async def client(database: str, nats_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The complete write path in one process, on real servers."""
    limits = DispatcherLimits(
        shard_count=1,
        ingress_queue_max=100,
        ingress_wallet_queue_max=100,
        shard_calls_in_flight_max=1,
        call_commands_max=100,
        call_wallet_commands_max=100,
        shard_unreachable_timeout_s=5.0,
    )
    async with (
        running_shard(database, nats_url) as shard,
        running_consumer(database, nats_url),
        queries_on(database) as queries,
    ):
        # A stream created while a command is decided is backfilled from the journal, and backfilled
        # events carry no trace.
        await until(lambda: shard.relay.stream_ready)
        services = Dependencies(
            settings=Settings(),
            dispatcher=Dispatcher(OneShard(shard), limits),
            queries=queries,
            probes={},
        )
        transport = httpx.ASGITransport(app=create_application(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://wallet") as client:
            yield client


async def put_in(client: httpx.AsyncClient, wallet: str, **headers: str) -> None:
    answer = await client.post(
        f"/v1/wallet/{wallet}/transfers/debit",
        json={"amount": "1.00", "status": "completed"},
        headers=headers,
    )
    assert answer.status_code == 201, answer.text


def only(spans: list[CollectedSpan]) -> CollectedSpan:
    (span,) = spans
    return span


async def test_a_transfer_is_followed_from_the_request_to_the_projection(
    collector: Collector, client: httpx.AsyncClient
) -> None:
    tracing.configure_tracing("test")
    wallet = (await client.post("/v1/wallet")).json()["id"]
    await put_in(client, wallet, traceparent=f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01")
    await until(lambda: bool(collector.named("project", CLIENT_TRACE)))

    request = only(collector.named("debit_wallet", CLIENT_TRACE))
    dispatch = only(collector.named("dispatch", CLIENT_TRACE))
    publish = only(collector.named("publish", CLIENT_TRACE))
    project = only(collector.named("project", CLIENT_TRACE))
    assert request.parent_id == CLIENT_SPAN
    assert dispatch.parent_id == request.span_id
    assert publish.parent_id == dispatch.span_id
    assert project.parent_id == publish.span_id
    assert request.started_ns <= dispatch.started_ns <= publish.started_ns <= project.started_ns

    linked = (CLIENT_TRACE, dispatch.span_id)
    batch = only([span for span in collector.named("batch") if linked in span.links])
    stages = [span for span in collector.spans if span.parent_id == batch.span_id]
    assert [span.name for span in sorted(stages, key=lambda span: span.started_ns)] == [
        "load",
        "decide",
        "postgres commit_batch",
        "reply",
    ]
    assert all(batch.started_ns <= span.started_ns <= span.ended_ns for span in stages)
    # The wallet's creation had no traceparent, so it has its own trace.
    assert only(collector.named("create_wallet")).trace_id != CLIENT_TRACE


async def test_what_is_not_sampled_leaves_nothing(
    collector: Collector, client: httpx.AsyncClient
) -> None:
    tracing.configure_tracing("test")
    wallet = (await client.post("/v1/wallet")).json()["id"]
    await put_in(client, wallet, traceparent=f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-00")
    other = CLIENT_TRACE[::-1]
    await put_in(client, wallet, traceparent=f"00-{other}-{CLIENT_SPAN}-01")
    await until(lambda: bool(collector.named("project", other)))
    assert not [span for span in collector.spans if span.trace_id == CLIENT_TRACE]


async def test_without_an_endpoint_there_is_no_tracing(
    monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
) -> None:
    monkeypatch.delenv(tracing.ENDPOINT_VARIABLE, raising=False)
    tracing.configure_tracing("test")
    assert not tracing.enabled
    wallet = (await client.post("/v1/wallet")).json()["id"]
    await put_in(client, wallet, traceparent=f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01")
