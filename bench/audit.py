"""Compare responses with stored and published data. A load that fails this has no throughput."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from bench.database_state import DatabaseState, State
from bench.generators.request_script import ResponseMode
from bench.generators.result import LoadResult
from bench.stream_state import StreamState


class AuditFailed(Exception):
    """Stored or published data differs from the responses; see ``findings``."""

    def __init__(self, scenario: str, findings: Sequence[str]) -> None:
        super().__init__(f"{scenario}: " + "; ".join(findings))
        self.findings = tuple(findings)


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What must be stored according to the responses."""

    transfers: int
    """Created transfers."""
    events: int
    """Creations and settlements."""


def expected_of(result: LoadResult, mode: ResponseMode, *, reads: bool = False) -> Expected:
    """What must be stored after the responses of a load."""
    if reads:
        return Expected(transfers=0, events=0)
    if mode is ResponseMode.ITEMS:
        return Expected(transfers=result.items_accepted, events=result.items_accepted)
    created = result.statuses.get("201", 0)
    settled = result.statuses.get("200", 0) if mode is ResponseMode.SETTLE else 0
    return Expected(transfers=created, events=created + settled)


class ConsistencyAudit:
    """The state of a set of wallets before a load, to be compared with the one after it."""

    def __init__(self, ledger: DatabaseState, stream: StreamState, wallets: Sequence[str]) -> None:
        self._ledger = ledger
        self._stream = stream
        self.wallets = wallets
        self.before: State
        self._versions: dict[str, int]
        self._messages: Counter[str]
        self._sequence = 0

    async def snapshot(self) -> None:
        """Record the current state. From here on only the load may write to the wallets."""
        self.before = await self._ledger.state(self.wallets)
        self._versions = await self._ledger.versions(self.wallets)
        self._messages = await self._stream.counts(self.wallets)
        self._sequence = await self._stream.last_sequence()

    async def mismatches(self, result: LoadResult, expected: Expected) -> list[str]:
        """Differences, as text; empty if there are none."""
        after = await self._ledger.state(self.wallets)
        return [
            *_unknown(result),
            *count_findings(expected, self.before, after),
            *await self._ledger.violations(self.wallets),
            *await self._stream_findings(),
        ]

    async def _stream_findings(self) -> list[str]:
        versions = await self._ledger.versions(self.wallets)
        messages = await self._stream.counts(self.wallets)
        wrong = [
            wallet
            for wallet, version in versions.items()
            if messages[wallet] - self._messages[wallet] != version - self._versions[wallet]
        ]
        if wrong:
            return [f"{len(wrong)} wallets: new stream events differ from new versions"]
        return await self._stream.violations(self._versions, versions, self._sequence)


def _unknown(result: LoadResult) -> list[str]:
    lost = result.unanswered + result.socket_errors
    return [f"{lost} requests have no response; their outcome is unknown"] if lost else []


def count_findings(expected: Expected, before: State, after: State) -> list[str]:
    """Compare the counts in Postgres with the responses."""
    transfers = after.transfers - before.transfers
    events = after.versions - before.versions
    findings = []
    if transfers != expected.transfers:
        findings.append(f"{expected.transfers} transfers were acknowledged, {transfers} are stored")
    if events != expected.events:
        findings.append(f"{expected.events} events were acknowledged, {events} are in the journal")
    return findings
