"""Wallets to measure with, created over HTTP, so that they are on the stream, too."""

import json
from collections.abc import Callable
from itertools import zip_longest
from typing import Final

from actors.dispatch.ring import ring_of
from bench.generators.load_spec import LoadFailed, LoadSpec
from bench.generators.python import Generator
from bench.generators.request_script import RequestScript, RequestTemplate, ResponseMode
from bench.generators.requests import RequestSource
from bench.generators.result import LoadResult
from bench.service import Service
from wallet.ids import WalletId

OnAnswer = Callable[[int, bytes], None]

_CONNECTIONS: Final = 64
_BATCH_CONNECTIONS: Final = 4
_TIME_MAX_S: Final = 600.0
_CANDIDATES: Final = 8
"""Wallets opened for each that is wanted: enough for every shard to own some."""


async def create_wallets(service: Service, count: int) -> list[str]:
    """Open ``count`` wallets.

    Raises:
        LoadFailed: not all of them were created.
    """
    ids: list[str] = []

    def collect(status: int, body: bytes) -> None:
        if status == 201:
            ids.append(json.loads(body)["id"])

    script = RequestScript(templates=[RequestTemplate(method="POST", path="/v1/wallet", body="{}")])
    result = await _send(service, script, count, on_answer=collect)
    if len(ids) != count:
        raise LoadFailed(f"{len(ids)} of {count} wallets were created, errors: {result.errors}")
    return ids


async def create_hot_wallets(service: Service, count: int) -> list[str]:
    """Open ``count`` wallets that are spread evenly over the shards.

    Raises:
        LoadFailed: they were not created.
    """
    ring = ring_of(service.shard_count())
    by_shard: dict[int, list[str]] = {}
    for wallet in await create_wallets(service, count * _CANDIDATES):
        by_shard.setdefault(ring.shard_of(WalletId(wallet)), []).append(wallet)
    in_turn = zip_longest(*by_shard.values())
    return [one for turn in in_turn for one in turn if one is not None][:count]


async def send_counted(service: Service, script: RequestScript, requests: int) -> LoadResult:
    """Send exactly ``requests`` requests of ``script``, as fast as responses come."""
    return await _send(service, script, requests, on_answer=None)


async def _send(
    service: Service, script: RequestScript, requests: int, on_answer: OnAnswer | None
) -> LoadResult:
    # A batch is a thousand transfers: a few connections keep the service busy with them.
    most = _BATCH_CONNECTIONS if script.mode is ResponseMode.ITEMS else _CONNECTIONS
    load = LoadSpec(
        url=service.http_url,
        script_file="",
        mode=script.mode,
        connections=min(most, requests),
        duration_s=_TIME_MAX_S,
        key_prefix="",
        headers=service.headers,
    )
    source = RequestSource(script.templates, url=service.http_url, headers=service.headers)
    return await Generator(load, source, requests_max=requests, on_answer=on_answer).run()
