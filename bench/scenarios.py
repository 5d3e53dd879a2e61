"""The scenarios, as data, and their request scripts."""

import json
import random
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from itertools import accumulate
from typing import Final

import msgspec

from bench.generators.request_script import RequestScript, RequestTemplate, ResponseMode

POOL_WALLETS: Final = 10_000
ZIPF_S: Final = 1.1
BATCH_ITEMS: Final = 1_000

_SEED: Final = 20_260_101
_ZIPF_DRAWS: Final = 100_000
_BATCH_BODIES: Final = 40
_FUNDS: Final = "1000000.00"

_PATH_BATCH_HOT: Final = "/v1/wallet/{wallet_id}/transfers/batch"
_PATH_BATCH_ANY: Final = "/v1/transfers/batch"
BATCH_ROUTES: Final = (_PATH_BATCH_HOT, _PATH_BATCH_ANY)


class Spread(StrEnum):
    """Which wallets the requests go to."""

    HOT = "hot"
    """All to one, created for the run."""
    FOUR_HOT = "four_hot"
    """Alternately to four, created for the run, evenly over the shards."""
    UNIFORM = "uniform"
    """To each of the pool as often as to any other."""
    ZIPF = "zipf"
    """To the n-th of the pool in proportion to n to the power of -1.1: few are hot, most cold."""


HOT_WALLETS: Final = {Spread.HOT: 1, Spread.FOUR_HOT: 4}
"""How many wallets a spread creates for the run; the others use the pool."""


class Kind(StrEnum):
    """Kind of request."""

    UNARY = "unary"
    BATCH = "batch"
    TWO_PHASE = "two_phase"
    READ = "read"
    MIXED = "mixed"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One way of using the service. ``headline``: the concurrency shown in tables."""

    name: str
    summary: str
    spread: Spread
    kind: Kind
    concurrencies: tuple[int, ...] = (1, 64, 256)
    headline: int = 256
    has_key: bool = False
    strong: bool = False
    open_loop: bool = False
    """Whether its latency is also measured at fixed rates."""
    funded: bool = False
    """Whether its wallets need money before it begins."""

    @property
    def writes(self) -> bool:
        return self.kind is not Kind.READ


SCENARIOS: Final = (
    Scenario(
        name="hot_unary",
        summary="One wallet, one transfer a request",
        spread=Spread.HOT,
        kind=Kind.UNARY,
        open_loop=True,
    ),
    Scenario(
        name="uniform_unary",
        summary="10,000 wallets, evenly, one transfer a request",
        spread=Spread.UNIFORM,
        kind=Kind.UNARY,
        open_loop=True,
    ),
    Scenario(
        name="zipf_unary",
        summary="10,000 wallets, Zipf s = 1.1, one transfer a request",
        spread=Spread.ZIPF,
        kind=Kind.UNARY,
    ),
    Scenario(
        name="four_hot_unary",
        summary="Four wallets, one transfer a request",
        spread=Spread.FOUR_HOT,
        kind=Kind.UNARY,
        concurrencies=(256,),
    ),
    # A batch is a thousand transfers: a handful of clients keeps a shard's mailbox full, and 256
    # would only measure how fast it returns 429.
    Scenario(
        name="hot_batch",
        summary="One wallet, 1,000 transfers a request",
        spread=Spread.HOT,
        kind=Kind.BATCH,
        concurrencies=(1, 2, 4),
        headline=4,
    ),
    Scenario(
        name="uniform_batch",
        summary="10,000 wallets, 1,000 transfers a request",
        spread=Spread.UNIFORM,
        kind=Kind.BATCH,
        concurrencies=(1, 2, 4),
        headline=4,
    ),
    Scenario(
        name="two_phase",
        summary="One wallet, create pending, then complete",
        spread=Spread.HOT,
        kind=Kind.TWO_PHASE,
    ),
    Scenario(
        name="hot_with_keys",
        summary="One wallet, a fresh Idempotency-Key a request",
        spread=Spread.HOT,
        kind=Kind.UNARY,
        has_key=True,
    ),
    Scenario(
        name="read_get",
        summary="10,000 wallets, reads from the projection",
        spread=Spread.UNIFORM,
        kind=Kind.READ,
    ),
    Scenario(
        name="read_strong",
        summary="10,000 wallets, reads of what is written",
        spread=Spread.UNIFORM,
        kind=Kind.READ,
        strong=True,
    ),
    Scenario(
        name="mixed",
        summary="10,000 wallets, Zipf, 60 % in, 20 % out, 20 % reads",
        spread=Spread.ZIPF,
        kind=Kind.MIXED,
        funded=True,
    ),
)

BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}


def script_of(scenario: Scenario, wallets: Sequence[str]) -> RequestScript:
    """The requests of ``scenario`` to ``wallets`` (the first ones, if only some are hot). The same
    ones every time."""
    rng = random.Random(_SEED)
    drawn = _draw(scenario.spread, wallets, rng)
    if scenario.kind is Kind.BATCH:
        return RequestScript(
            templates=_batches(scenario, drawn),
            mode=ResponseMode.ITEMS,
            items_per_request=BATCH_ITEMS,
        )
    if scenario.kind is Kind.READ:
        query = "?consistency=strong" if scenario.strong else ""
        templates = [
            RequestTemplate(method="GET", path=f"/v1/wallet/{wallet}{query}") for wallet in drawn
        ]
        return RequestScript(templates=templates, items_per_request=0)
    if scenario.kind is Kind.TWO_PHASE:
        templates = [_transfer(wallet, "debit", "pending") for wallet in drawn]
        return RequestScript(templates=templates, mode=ResponseMode.SETTLE)
    if scenario.kind is Kind.MIXED:
        return RequestScript(templates=[_mixed(wallet, rng) for wallet in drawn])
    return RequestScript(
        templates=[_transfer(w, "debit", "completed", has_key=scenario.has_key) for w in drawn]
    )


def _draw(spread: Spread, wallets: Sequence[str], rng: random.Random) -> list[str]:
    if spread in HOT_WALLETS:
        return list(wallets[: HOT_WALLETS[spread]])
    shuffled = rng.sample(wallets, len(wallets))
    if spread is Spread.UNIFORM:
        return shuffled
    weights = list(accumulate(rank**-ZIPF_S for rank in range(1, len(wallets) + 1)))
    return rng.choices(shuffled, cum_weights=weights, k=_ZIPF_DRAWS)


def _transfer(
    wallet: str, kind: str, status: str, *, has_key: bool = False, amount: str = "1.00"
) -> RequestTemplate:
    path = f"/v1/wallet/{wallet}/transfers/{kind}"
    return RequestTemplate(
        method="POST",
        path=path,
        body=_body(amount, status),
        has_key=has_key,
    )


@cache
def _body(amount: str, status: str) -> str:
    return json.dumps({"amount": amount, "status": status}, separators=(",", ":"))


def _mixed(wallet: str, rng: random.Random) -> RequestTemplate:
    drawn = rng.random()
    if drawn < 0.2:
        return RequestTemplate(method="GET", path=f"/v1/wallet/{wallet}")
    return _transfer(wallet, "debit" if drawn < 0.8 else "credit", "completed")


def _batches(scenario: Scenario, wallets: Sequence[str]) -> list[RequestTemplate]:
    if scenario.spread is Spread.HOT:
        items = [_item() for _ in range(BATCH_ITEMS)]
        return [_batch(_PATH_BATCH_HOT.format(wallet_id=wallets[0]), items)]
    templates = []
    for number in range(_BATCH_BODIES):
        start = number * BATCH_ITEMS
        chosen = [wallets[(start + n) % len(wallets)] for n in range(BATCH_ITEMS)]
        templates.append(_batch(_PATH_BATCH_ANY, [_item(wallet) for wallet in chosen]))
    return templates


def _item(wallet: str | None = None, *, amount: str = "1.00") -> dict[str, str]:
    item = {"type": "debit", "amount": amount, "status": "completed"}
    return item if wallet is None else {"wallet_id": wallet, **item}


def _batch(path: str, items: list[dict[str, str]]) -> RequestTemplate:
    # Only a wallet's batch can be atomic; it isn't here: each item is independent.
    body: dict[str, object] = {"items": items}
    if path != _PATH_BATCH_ANY:
        body["atomic"] = False
    return RequestTemplate(method="POST", path=path, body=json.dumps(body, separators=(",", ":")))


def funding_script(wallets: Sequence[str], *, in_batches: bool) -> RequestScript:
    """A debit of 1,000,000.00 to each wallet: later credits never fail for lack of funds."""
    if not in_batches:
        return RequestScript(
            templates=[_transfer(w, "debit", "completed", amount=_FUNDS) for w in wallets]
        )
    parts = [wallets[n : n + BATCH_ITEMS] for n in range(0, len(wallets), BATCH_ITEMS)]
    items = ([_item(wallet, amount=_FUNDS) for wallet in part] for part in parts)
    return RequestScript(
        templates=[_batch(_PATH_BATCH_ANY, some) for some in items], mode=ResponseMode.ITEMS
    )


def needs_batch_route(scenario: Scenario) -> bool:
    """Whether the scenario uses the batch endpoints."""
    return scenario.kind is Kind.BATCH
