"""One run: every scenario, then the baselines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from bench.baselines import fastapi_service, pgbench, postgres_ceiling
from bench.baselines.baseline_result import Baseline
from bench.database_state import CONNECT_TIMEOUT_S, DatabaseState
from bench.measure import Bench
from bench.measurement import Measured, median_run_of
from bench.memory import measure_memory
from bench.noisy_neighbour import measure_neighbour
from bench.plan import OPEN_LOOP_CONNECTIONS, OPEN_LOOP_SHARES, Plan
from bench.processes import usage_of
from bench.ratios import Measurements
from bench.scenarios import BY_NAME, SCENARIOS, Scenario, needs_batch_route
from bench.service import Service
from bench.stream_state import connected
from runtime.postgres.connect import connect

_NO_BATCH_ROUTE = "the service has no batch endpoint"

_WARM_UP_S = 2.0
_WARM_UP_CONNECTIONS = 64
_IDLE_S = 5.0

Step = tuple[str, Callable[[], Awaitable[str]]]
"""Name, and the function that runs it and returns a summary."""


class Run:
    """The steps of a run, and their results."""

    def __init__(self, bench: Bench, plan: Plan, only: Collection[str] = ()) -> None:
        self.bench = bench
        self.found = Measurements()
        self._plan = plan
        self._only = set(only)

    def service_steps(self) -> list[Step]:
        """Everything that needs the service."""
        steps: list[Step] = [("warm up", self._warm_up)]
        for scenario in SCENARIOS:
            if not self._includes(scenario.name):
                continue
            if needs_batch_route(scenario) and not self.bench.has_batches:
                self.found.skipped[scenario.name] = _NO_BATCH_ROUTE
                continue
            steps += [
                self._closed_step(scenario, connections)
                for connections in self._plan.concurrencies(scenario)
            ]
            if self._plan.has_open_loop(scenario):
                steps += [self._open_step(scenario, share) for share in OPEN_LOOP_SHARES]
        return [*steps, *self._extra_steps()]

    def baseline_steps(self, url: str) -> list[Step]:
        """What it is compared with, in the database at ``url``."""
        if not self._includes("baselines"):
            return []
        return [
            ("idle service", self._idle),
            *(self._fastapi_step(url, workers) for workers in fastapi_service.WORKERS),
            *(self._pgbench_step(url, clients) for clients in pgbench.CLIENTS),
            *(self._limit_step(url, size) for size in postgres_ceiling.BATCHES),
        ]

    def _includes(self, name: str) -> bool:
        return not self._only or name in self._only

    # -- the service ---------------------------------------------------------------------------

    async def _warm_up(self) -> str:
        await self.bench.measure(
            BY_NAME["hot_unary"], connections=_WARM_UP_CONNECTIONS, duration_s=_WARM_UP_S
        )
        return ""

    def _closed_step(self, scenario: Scenario, connections: int) -> Step:
        async def measure() -> str:
            measured = await self.bench.measure(
                scenario, connections=connections, duration_s=self._plan.closed_s
            )
            self.found.closed.setdefault(scenario.name, {})[connections] = measured
            if connections == scenario.headline:
                self.found.headline[scenario.name] = measured
            return summary(measured)

        return f"{scenario.name}, {connections} connections", measure

    def _open_step(self, scenario: Scenario, share: float) -> Step:
        percent = round(100 * share)

        async def measure() -> str:
            runs = [
                await self.bench.measure(
                    scenario,
                    connections=OPEN_LOOP_CONNECTIONS,
                    duration_s=self._plan.open_s,
                    rate=max(share * self.found.peak(scenario.name), 1.0),
                )
                for _ in range(self._plan.open_loop_runs(scenario))
            ]
            measured = median_run_of(runs)
            self.found.open.setdefault(scenario.name, {})[percent] = measured
            return summary(measured)

        return f"{scenario.name}, open loop at {percent} % of its peak", measure

    def _extra_steps(self) -> list[Step]:
        steps: list[Step] = []
        if self._includes("neighbour"):
            steps.append(("noisy neighbour", self._neighbour))
        if self._includes("memory"):
            if self.bench.has_batches:
                steps.append(("memory after many transfers", self._memory))
            else:
                self.found.skipped["memory_growth"] = _NO_BATCH_ROUTE
        return steps

    async def _neighbour(self) -> str:
        found = await measure_neighbour(self.bench, self._plan.neighbour_s)
        self.found.neighbour = found
        overloaded = f"{found.contended_p99_ms:.1f} ms beside an overloaded wallet"
        return f"p99 {found.alone_p99_ms:.1f} ms alone, {overloaded}"

    async def _memory(self) -> str:
        found = await measure_memory(self.bench, self._plan.memory_transfers)
        self.found.memory = found
        before, after = (sum(one.values()) / 2**20 for one in (found.before, found.after))
        growth = f"{before:.0f} MiB before, {after:.0f} MiB after {found.transfers:,} transfers"
        return f"{growth}, refused {dict(found.refused)}" if found.refused else growth

    async def _idle(self) -> str:
        """CPU of the idle service, which runs beside the baselines."""
        before = usage_of(self.bench.service)
        await asyncio.sleep(_IDLE_S)
        used = usage_of(self.bench.service).since(before)
        if not used:
            return "processes unknown"
        self.found.idle_cores = round(sum(used.values()) / _IDLE_S, 3)
        return f"{self.found.idle_cores:.2f} cores"

    # -- baselines ------------------------------------------------------------------------------

    def _fastapi_step(self, url: str, workers: int) -> Step:
        async def measure() -> str:
            async with fastapi_service.running_baseline(url, workers=workers) as http_url:
                for connections in (1, 256):
                    found = await fastapi_service.measure(
                        http_url,
                        url,
                        workers=workers,
                        connections=connections,
                        duration_s=self._plan.baseline_s,
                        wrk_allowed=self.bench.wrk_allowed,
                    )
                    self.found.fastapi.append(found)
            return baseline_summary(found)

        return f"baseline (a) FastAPI, row lock, {workers} uvicorn workers", measure

    def _pgbench_step(self, url: str, clients: int) -> Step:
        async def measure() -> str:
            found = await pgbench.measure(url, clients=clients, duration_s=self._plan.baseline_s)
            self.found.pgbench.append(found)
            return baseline_summary(found)

        return f"baseline (b) pgbench, row lock, {clients} clients", measure

    def _limit_step(self, url: str, size: int) -> Step:
        async def measure() -> str:
            found = await postgres_ceiling.measure(
                url, batch=size, duration_s=self._plan.baseline_s / 2
            )
            self.found.limit[size] = found
            return baseline_summary(found)

        return f"baseline (c) the limit, batches of {size}", measure


def summary(measured: Measured) -> str:
    """A measurement in one line."""
    per_s = f"{measured.requests_per_s:,.0f} requests/s"
    if measured.transfers:
        per_s += f", {measured.transfers_per_s:,.0f} transfers/s"
    errors = f", errors {dict(measured.errors)}" if measured.errors else ""
    runs = ", ".join(f"{p99_ms:.1f}" for p99_ms in measured.p99_ms_of_looks)
    of_runs = f" (median of {runs})" if runs else ""
    return f"{per_s}, p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms{of_runs}{errors}"


def baseline_summary(found: Baseline) -> str:
    """A baseline in one line."""
    return f"{found.transfers_per_s:,.0f} transfers/s, p50 {found.p50_ms:.2f} ms"


@asynccontextmanager
async def opened(service: Service, plan: Plan, *, wrk_allowed: bool) -> AsyncIterator[Bench]:
    """A bench for ``service``, connected to its database and its stream."""
    connection = await connect(
        service.database_url, timeout_s=CONNECT_TIMEOUT_S, settings={"jit": "off"}
    )
    try:
        async with connected(service.nats_url, service.stream) as stream:
            yield Bench(
                service,
                DatabaseState(connection),
                stream,
                pool_wallets=plan.pool_wallets,
                wrk_allowed=wrk_allowed,
            )
    finally:
        await connection.close()
