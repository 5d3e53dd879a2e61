"""One measurement of how cost grows, on a stack that was started for it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from actors.journal.postgres_chain import link_all_wallets
from bench.data_growth import Tables
from bench.generators.request_script import RequestScript
from bench.measure import Bench
from bench.measurement import Measured
from bench.processes import memory_of, usage_of
from bench.scenarios import BY_NAME, script_of

SHAPE_SCENARIOS: Final = ("hot_unary", "uniform_unary", "hot_batch", "uniform_batch")

_WARM_UP_S: Final = 2.0
_TOUCHED_MAX: Final = 20_000
_HISTORY_WALLETS: Final = 1_000


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a stack."""

    shards: int
    ingress: int

    def environment(self) -> dict[str, str]:
        """The settings that a stack of this shape is started with."""
        return {
            "WALLET_SHARD_COUNT": str(self.shards),
            "WALLET_INGRESS_REPLICAS": str(self.ingress),
        }


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Throughput and cost of a stack of one shape."""

    shards: int
    ingress: int
    scenarios: Mapping[str, Measured]
    wal_bytes_per_transfer: Mapping[str, float]
    stream_bytes_per_event: float

    def summary(self) -> str:
        per_s = ", ".join(f"{n} {one.transfers_per_s:,.0f}/s" for n, one in self.scenarios.items())
        return f"{self.shards} shards, {self.ingress} ingress replicas: {per_s}"


class Wallets(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of many wallets, and of loading one for the first time."""

    wallets: int
    touched: int
    cold_per_s: float
    """Transfers/s, one to each of ``touched`` wallets that no shard has in memory."""
    warm_per_s: float
    """The same again."""
    activation_cpu_ms: float
    """CPU of the service and Postgres for a first transfer, beyond that of a second one."""
    shard_bytes_per_wallet: float
    sizes: Mapping[str, int]
    hot_unary: Measured

    def summary(self) -> str:
        return (
            f"{self.wallets:,} wallets: cold {self.cold_per_s:,.0f}/s, "
            f"warm {self.warm_per_s:,.0f}/s, "
            f"hot_unary {self.hot_unary.transfers_per_s:,.0f}/s"
        )


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a long journal."""

    events: int
    deep_unary: Measured
    """All to one wallet that has half of the events."""
    spread_unary: Measured
    """To the thousand wallets that have the other half."""
    spread_again: Measured
    """The same once more: most pages that it changes are in the write-ahead log as a whole."""
    full_pages_per_transfer: Mapping[str, float]
    """Full-page images in the write-ahead log, by load."""
    wal_bytes_per_transfer: Mapping[str, float]
    sizes: Mapping[str, int]
    filled_s: float

    def summary(self) -> str:
        return (
            f"{self.events:,} events: one deep wallet {self.deep_unary.transfers_per_s:,.0f}/s, "
            f"spread {self.spread_unary.transfers_per_s:,.0f}/s, "
            f"again {self.spread_again.transfers_per_s:,.0f}/s"
        )


def measure_shape(scale: Scale, seconds: float) -> Callable[[Bench, Tables], Awaitable[Shape]]:
    """The write scenarios, with the cost of shards and ingress separately."""

    async def measure(bench: Bench, tables: Tables) -> Shape:
        await _warm_up(bench)
        scenarios: dict[str, Measured] = {}
        wal: dict[str, float] = {}
        for name in SHAPE_SCENARIOS:
            scenario = BY_NAME[name]
            before = await tables.wal_position()
            measured = await bench.measure(
                scenario, connections=scenario.headline, duration_s=seconds
            )
            written = await tables.wal_position() - before
            scenarios[name] = measured
            wal[name] = round(written / max(measured.transfers, 1), 1)
        return Shape(
            shards=scale.shards,
            ingress=scale.ingress,
            scenarios=scenarios,
            wal_bytes_per_transfer=wal,
            stream_bytes_per_event=round(await bench.stream.bytes_per_message(), 1),
        )

    return measure


def measure_wallets(count: int, seconds: float) -> Callable[[Bench, Tables], Awaitable[Wallets]]:
    """Fill the table, write to some wallets a first and a second time, then to one hot wallet."""

    async def measure(bench: Bench, tables: Tables) -> Wallets:
        await _warm_up(bench)
        ids = await tables.add_wallets(count)
        await tables.vacuum()
        touched = ids[:: max(len(ids) // _TOUCHED_MAX, 1)][:_TOUCHED_MAX]
        script = script_of(BY_NAME["uniform_unary"], touched)
        shards = memory_of(bench.service.processes()).get("shards", 0)
        cold_per_s, cold_cpu_s = await _touch(bench, script, touched)
        grown = memory_of(bench.service.processes()).get("shards", 0) - shards
        warm_per_s, warm_cpu_s = await _touch(bench, script, touched)
        hot = BY_NAME["hot_unary"]
        return Wallets(
            wallets=count,
            touched=len(touched),
            cold_per_s=round(cold_per_s, 1),
            warm_per_s=round(warm_per_s, 1),
            activation_cpu_ms=round(1000 * (cold_cpu_s - warm_cpu_s) / len(touched), 4),
            shard_bytes_per_wallet=round(grown / len(touched), 1),
            sizes=await tables.sizes(),
            hot_unary=await bench.measure(hot, connections=hot.headline, duration_s=seconds),
        )

    return measure


def measure_history(count: int, seconds: float) -> Callable[[Bench, Tables], Awaitable[History]]:
    """Half of the events in one wallet, half in a thousand; then load on both."""

    async def measure(bench: Bench, tables: Tables) -> History:
        await _warm_up(bench)
        began = time.monotonic()
        deep, *spread = await tables.add_wallets(_HISTORY_WALLETS + 1)
        await tables.add_events([deep], count // 2)
        await tables.add_events(spread, count // 2 // _HISTORY_WALLETS)
        # The rows have no hashes, as those of a release before the chain after `wallet migrate`.
        await link_all_wallets(bench.service.database_url)
        await tables.vacuum()
        filled_s = time.monotonic() - began
        sizes = await tables.sizes()
        loads = {
            "deep_unary": ("hot_unary", [deep]),
            "spread_unary": ("uniform_unary", spread),
            "spread_again": ("uniform_unary", spread),
        }
        measured: dict[str, Measured] = {}
        full_pages: dict[str, float] = {}
        wal: dict[str, float] = {}
        for name, (scenario, wallets) in loads.items():
            pages, position = await tables.full_pages(), await tables.wal_position()
            measured[name] = one = await bench.measure(
                BY_NAME[scenario],
                connections=BY_NAME[scenario].headline,
                duration_s=seconds,
                wallets=wallets,
            )
            transfers = max(one.transfers, 1)
            full_pages[name] = round((await tables.full_pages() - pages) / transfers, 3)
            wal[name] = round((await tables.wal_position() - position) / transfers, 1)
        return History(
            events=count,
            filled_s=round(filled_s, 1),
            sizes=sizes,
            full_pages_per_transfer=full_pages,
            wal_bytes_per_transfer=wal,
            **measured,
        )

    return measure


async def _warm_up(bench: Bench) -> None:
    await bench.measure(BY_NAME["hot_unary"], connections=64, duration_s=_WARM_UP_S)


async def _touch(bench: Bench, script: RequestScript, wallets: list[str]) -> tuple[float, float]:
    """Requests/s, and CPU seconds of the whole service, for one transfer to each wallet."""
    before = usage_of(bench.service)
    sent = await bench.send("wallets", script, wallets, len(script.templates))
    cpu_s = sum(usage_of(bench.service).since(before).values())
    return sent.accepted / sent.duration_s, cpu_s
