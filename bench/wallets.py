"""Wallets to measure with, made over HTTP like anybody's, so that they are on the stream, too."""

import json
from collections.abc import Callable, Sequence
from typing import Final

from bench.generators.deck import Card, Deck, Mode
from bench.generators.load import Load, LoadFailed
from bench.generators.python import Generator
from bench.generators.requests import RequestSource
from bench.generators.result import LoadResult
from bench.service import Service

_CONNECTIONS: Final = 64
_TIME_MAX_S: Final = 300.0


async def create_wallets(service: Service, count: int) -> list[str]:
    """Open ``count`` wallets.

    Raises:
        LoadFailed: not all of them came to be.
    """
    ids: list[str] = []

    def learn(status: int, body: bytes) -> None:
        if status == 201:
            ids.append(json.loads(body)["id"])

    await _send_all(service, [Card(method="POST", path="/v1/wallet", body="{}")], count, learn)
    return ids


async def send_deck(service: Service, deck: Deck) -> None:
    """Send every card once.

    Raises:
        LoadFailed: not all of them were accepted.
    """
    await _send_all(service, deck.cards, len(deck.cards), lambda _status, _body: None)


async def _send_all(
    service: Service,
    cards: Sequence[Card],
    count: int,
    learn: Callable[[int, bytes], None],
) -> None:
    load = Load(
        url=service.http_url,
        deck="",
        mode=Mode.PLAIN,
        connections=min(_CONNECTIONS, count),
        duration_s=_TIME_MAX_S,
        key_prefix="",
        headers=service.headers,
    )
    source = RequestSource(cards, url=service.http_url, headers=service.headers)
    result = await Generator(load, source, requests_max=count, on_answer=learn).run()
    _insist(result, count)


def _insist(result: LoadResult, count: int) -> None:
    if result.accepted != count:
        raise LoadFailed(f"{result.accepted} of {count} were accepted, the rest: {result.errors}")
