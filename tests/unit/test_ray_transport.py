"""A shard's name is looked up beside the event loop: Ray blocks while its head can't be reached."""

import asyncio
import threading

import pytest

from actors.ray_transport import RayShardTransport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.tls import TlsFiles
from actors.rpc.transport import ShardUnreachable

_NO_TLS = TlsFiles(shard_tls_certificate="", shard_tls_key="", shard_tls_authority="")
_HEARTBEAT = Heartbeat(shard_ping_s=1.0, shard_pings_missed_max=3)


async def test_requests_go_on_while_a_lookup_of_a_shard_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head_is_back = threading.Event()

    def blocks(_name: str) -> object:
        head_is_back.wait(5)
        raise ValueError("no such actor")

    monkeypatch.setattr("actors.ray_transport.serve.get_deployment_actor", blocks)
    shards = RayShardTransport(1, _HEARTBEAT, _NO_TLS)
    call = asyncio.ensure_future(shards.statistics(0))
    await asyncio.sleep(0)  # with a blocking lookup this would take 5 s
    assert not head_is_back.is_set()
    assert not call.done()
    assert not shards.reaches_a_shard()

    head_is_back.set()
    with pytest.raises(ShardUnreachable) as failure:
        await call
    assert not failure.value.delivered
