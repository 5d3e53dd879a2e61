"""One load on the service, from new wallets to audited figures."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import uuid6

from bench.audit import AuditFailed, ConsistencyAudit, expected_of
from bench.database_state import DatabaseState
from bench.drain import wait_until_drained
from bench.generators.generate import generate
from bench.generators.load_spec import LoadFailed, LoadSpec
from bench.generators.request_script import RequestScript
from bench.generators.result import LoadResult
from bench.measurement import Measured, batch_sizes_of, measured_of
from bench.processes import usage_of
from bench.scenarios import (
    BATCH_ROUTES,
    HOT_WALLETS,
    Kind,
    Scenario,
    funding_script,
    script_of,
)
from bench.service import Service
from bench.stream_state import StreamState
from bench.wallets import create_hot_wallets, create_wallets, send_counted


class Bench:
    """The service and everything needed to measure it. The pool is created when needed."""

    def __init__(
        self,
        service: Service,
        ledger: DatabaseState,
        stream: StreamState,
        *,
        pool_wallets: int,
        wrk_allowed: bool,
    ) -> None:
        self.service = service
        self.ledger = ledger
        self.stream = stream
        self.wrk_allowed = wrk_allowed
        self._pool_wallets = pool_wallets
        self._pool: list[str] = []
        self._is_funded = False
        self.has_batches = all(service.has_route(path) for path in BATCH_ROUTES)

    async def pool(self) -> list[str]:
        """Many wallets, shared by the scenarios that don't need one of their own."""
        if not self._pool:
            self._pool = await create_wallets(self.service, self._pool_wallets)
        return self._pool

    async def wallets_of(self, scenario: Scenario) -> list[str]:
        """The wallets of ``scenario``, ready for it."""
        if scenario.spread in HOT_WALLETS:
            return await create_hot_wallets(self.service, HOT_WALLETS[scenario.spread])
        pool = await self.pool()
        if scenario.funded and not self._is_funded:
            script = funding_script(pool, in_batches=self.has_batches)
            await self.send("funding", script, pool, len(script.templates))
            self._is_funded = True
        return pool

    def load_of(
        self,
        script: RequestScript,
        *,
        connections: int,
        duration_s: float,
        folder: Path,
        rate: float | None = None,
    ) -> LoadSpec:
        """``script`` as a load on the service; the file is written into ``folder``."""
        file = folder / f"{uuid6.uuid7().hex}.script"
        script.write(file)
        return LoadSpec(
            url=self.service.http_url,
            script_file=str(file),
            mode=script.mode,
            connections=connections,
            duration_s=duration_s,
            key_prefix=f"bench-{uuid6.uuid7().hex[-12:]}-",
            rate=rate,
            headers=self.service.headers,
        )

    async def measure(
        self,
        scenario: Scenario,
        *,
        connections: int,
        duration_s: float,
        rate: float | None = None,
        wallets: Sequence[str] = (),
    ) -> Measured:
        """Load, wait for the read side, audit.

        Raises:
            AuditFailed: stored or published data differs from the responses.
            LoadFailed: the load could not be generated, or the read side did not catch up.
        """
        wallets = wallets or await self.wallets_of(scenario)
        await wait_until_drained(self.ledger, wallets)
        script = script_of(scenario, wallets)
        audit = ConsistencyAudit(self.ledger, self.stream, wallets)
        await audit.snapshot()
        await self.ledger.checkpoint()
        usage = usage_of(self.service)
        with tempfile.TemporaryDirectory(prefix="wallet-bench-") as folder:
            load = self.load_of(
                script,
                connections=connections,
                duration_s=duration_s,
                folder=Path(folder),
                rate=rate,
            )
            result = await generate(load, wrk_allowed=self.wrk_allowed)
        drained_at = await wait_until_drained(self.ledger, wallets)
        cpu_s = usage_of(self.service).since(usage)
        expected = expected_of(result, script.mode, reads=scenario.kind is Kind.READ)
        findings = await audit.mismatches(result, expected)
        if findings:
            raise AuditFailed(scenario.name, findings)
        batches = await self.ledger.batches(wallets, audit.before.now) if scenario.writes else []
        return measured_of(
            result,
            expected,
            drained_at=drained_at,
            cpu_s=cpu_s,
            batch_sizes=batch_sizes_of(batches),
        )

    async def send(
        self,
        name: str,
        script: RequestScript,
        wallets: Sequence[str],
        requests: int,
        *,
        allow_refusals: bool = False,
    ) -> LoadResult:
        """Send exactly ``requests`` of ``script``, audited.

        Raises:
            AuditFailed, LoadFailed: as `measure`; LoadFailed also if anything was refused, except
                refused batch items with ``allow_refusals``.
        """
        await wait_until_drained(self.ledger, wallets)
        audit = ConsistencyAudit(self.ledger, self.stream, wallets)
        await audit.snapshot()
        result = await send_counted(self.service, script, requests)
        all_answered = result.accepted == requests
        if result.errors and not (allow_refusals and all_answered):
            raise LoadFailed(f"{name}: requests were refused: {result.errors}")
        await wait_until_drained(self.ledger, wallets)
        findings = await audit.mismatches(result, expected_of(result, script.mode))
        if findings:
            raise AuditFailed(name, findings)
        return result
