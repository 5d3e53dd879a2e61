"""One range of wallets against the rules, in one snapshot of Postgres.

Two passes over the journal, each with a page of rows in memory: by version, for the fold, and by
transfer, for what became of each. So one wallet may have any number of events and transfers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from verification import rows
from verification.facts import Balances, JournalEvent, WalletRow
from verification.findings import Findings
from verification.idempotency_row_rules import judge_key_rows, referenced_versions
from verification.journal_rules import TransferLifecycles, WalletReplay
from verification.merge_join import CursorPages, Key, merge_join
from verification.projection_rules import judge_folded_transfer
from verification.row_rules import judge_transfer_rows
from verification.rows import Row, events_at
from verification.violations import Violation, ViolationKind
from verification.wallet_ranges import Range

_NO_WALLET: Final = WalletRow(wallet_id="", version=0, balances=Balances())


class Totals(msgspec.Struct):
    """What a check has seen."""

    wallets: int = 0
    events: int = 0
    transfers: int = 0
    keys: int = 0
    unpublished: int = 0
    """Events that wait in the outbox."""
    wallets_behind: int = 0
    """Wallets whose projection has not got all events yet."""
    events_behind: int = 0
    behind_since: datetime | None = None
    """Of the wallets that are behind, the last event of the one that has waited longest."""
    now: datetime | None = None
    """Postgres' clock at the last snapshot."""
    holds: Counter[str] = msgspec.field(default_factory=Counter)
    """By currency: what wallets hold, less what came in, plus what went out. Zero, that is."""


class RangeCheck:
    """Checks a range; what it saw goes to ``totals``, what is wrong to ``findings``."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        wallets: Range,
        *,
        findings: Findings,
        totals: Totals,
        lag_max: timedelta,
    ) -> None:
        self._connection = connection
        self._bounds = (wallets.after, wallets.until)
        self._findings = findings
        self._totals = totals
        self._lag_max = lag_max
        self._wallets: dict[str, rows.Wallet] = {}
        self._projected: dict[str, WalletRow] = {}

    async def run(self) -> None:
        """Check; needs a transaction that sees one snapshot."""
        self._totals.now = await self._connection.fetchval("SELECT clock_timestamp()")
        await self._load()
        await self._judge_journal()
        await self._judge_transfers()
        self._judge_projected()
        await self._judge_outbox()
        async for page in self._pages(rows.KEYS):
            keys = [rows.key_of(row) for row in page]
            events = await events_at(self._connection, referenced_versions(keys))
            versions = {one: found.row.version for one, found in self._wallets.items()}
            self._findings.add(judge_key_rows(keys, events, versions))
            self._totals.keys += len(keys)

    def _pages(self, statement: str) -> CursorPages:
        return CursorPages(self._connection, statement, *self._bounds)

    async def _load(self) -> None:
        async for page in self._pages(rows.WALLETS):
            for wallet in map(rows.wallet_of, page):
                self._wallets[wallet.row.wallet_id] = wallet
                sums = wallet.row.balances
                self._totals.holds[wallet.row.currency] += sums.balance + sums.pending_credit
        async for page in self._pages(rows.PROJECTED_WALLETS):
            for row in map(rows.projected_wallet_of, page):
                self._projected[row.wallet_id] = row
        self._totals.wallets += len(self._wallets)

    # -- by version --------------------------------------------------------------------------------

    async def _judge_journal(self) -> None:
        unseen = set(self._wallets)
        fold = WalletReplay("")
        async for page in self._pages(rows.EVENTS_BY_VERSION):
            for event in map(rows.event_of, page):
                if event.wallet_id != fold.wallet_id:
                    self._findings.add(self._judge_end(fold))
                    unseen.discard(event.wallet_id)
                    fold = WalletReplay(event.wallet_id, self._limit_of(event.wallet_id))
                self._findings.add(fold.add(event))
                projected = self._projected.get(event.wallet_id)
                if projected is not None and projected.version == event.version:
                    self._findings.add(_judge_projection(projected, event))
            self._totals.events += len(page)
        self._findings.add(self._judge_end(fold))
        for wallet_id in sorted(unseen):
            self._findings.add(self._judge_end(WalletReplay(wallet_id)))

    def _limit_of(self, wallet_id: str) -> int:
        wallet = self._wallets.get(wallet_id)
        return wallet.row.overdraft_limit if wallet else 0

    def _judge_end(self, fold: WalletReplay) -> Iterator[Violation]:
        """The wallet's row is its last event."""
        if not fold.wallet_id:
            return
        wallet = self._wallets.get(fold.wallet_id)
        if wallet is None:
            yield _violation(
                ViolationKind.WALLET_ROW_MISSING, fold.wallet_id, f"version={fold.version}"
            )
        elif (wallet.row.version, wallet.row.balances) != (fold.version, fold.sums):
            yield _violation(
                ViolationKind.WALLET_ROW_DIFFERS,
                fold.wallet_id,
                f"row: {wallet.row.version} {wallet.row.balances}, "
                f"journal: {fold.version} {fold.sums}",
            )

    # -- by transfer -------------------------------------------------------------------------------

    async def _judge_transfers(self) -> None:
        statements = {
            "events": self._pages(rows.EVENTS_BY_TRANSFER),
            "row": self._pages(rows.TRANSFERS),
            "projected": self._pages(rows.PROJECTED_TRANSFERS),
        }
        async for group in merge_join(statements, _transfer_key):
            for (wallet_id, transfer_id), found in sorted(group.items()):
                self._findings.add(self._judge_transfer(wallet_id, transfer_id, found))

    def _judge_transfer(
        self, wallet_id: str, transfer_id: str, found: dict[str, list[Row]]
    ) -> Iterator[Violation]:
        events = [rows.event_of(row) for row in found.get("events", ())]
        lives = TransferLifecycles(wallet_id)
        for event in events:
            yield from lives.add(event)
        written = [rows.transfer_of(row) for row in found.get("row", ())]
        for row in written:
            self._totals.transfers += 1
            if row.status == "completed":
                wallet = self._wallets.get(wallet_id)
                sign = -1 if row.type == "debit" else 1
                self._totals.holds[wallet.row.currency if wallet else ""] += sign * row.amount
        yield from judge_transfer_rows({wallet_id: events}, written)
        projected = found.get("projected", [None])[0]
        if not events:
            if projected is not None:
                detail = f"transfer={transfer_id}"
                yield _violation(ViolationKind.PROJECTION_UNKNOWN, wallet_id, detail)
            return
        yield from judge_folded_transfer(
            events,
            rows.transfer_of(projected) if projected else None,
            version=projected[8] if projected else 0,
            wallet_version=self._projected.get(wallet_id, _NO_WALLET).version,
        )

    # -- by wallet ---------------------------------------------------------------------------------

    def _judge_projected(self) -> None:
        for wallet_id, wallet in self._wallets.items():
            projected = self._projected.get(wallet_id, _NO_WALLET)
            if projected.version < wallet.row.version:
                self._record_lag(wallet, projected)
            elif projected.version > wallet.row.version:
                detail = f"{projected.version}, write side {wallet.row.version}"
                self._findings.add(
                    [_violation(ViolationKind.PROJECTION_DIFFERS, wallet_id, detail)]
                )
        for wallet_id in sorted(self._projected.keys() - self._wallets.keys()):
            self._findings.add([_violation(ViolationKind.PROJECTION_UNKNOWN, wallet_id, "")])

    def _record_lag(self, wallet: rows.Wallet, projected: WalletRow) -> None:
        """To be behind is no drift, unless it is for so long that nothing is on its way."""
        totals = self._totals
        totals.wallets_behind += 1
        totals.events_behind += wallet.row.version - projected.version
        totals.behind_since = min(totals.behind_since or wallet.updated_at, wallet.updated_at)
        assert totals.now is not None, "asked at the start"
        if totals.now - wallet.updated_at < self._lag_max:
            return
        breach = (
            ViolationKind.PROJECTION_BEHIND
            if projected.version
            else ViolationKind.PROJECTION_MISSING
        )
        detail = f"{projected.version} of {wallet.row.version} since {wallet.updated_at}"
        self._findings.add([_violation(breach, wallet.row.wallet_id, detail)])

    async def _judge_outbox(self) -> None:
        ends: defaultdict[str, int] = defaultdict(int)
        async for page in self._pages(rows.OUTBOX):
            for row in map(rows.outbox_of, page):
                self._totals.unpublished += row.last_version - row.first_version + 1
                wallet = self._wallets.get(row.wallet_id)
                known = wallet.row.version if wallet else 0
                if not ends[row.wallet_id] < row.first_version <= row.last_version <= known:
                    violation = _violation(
                        ViolationKind.OUTBOX_ROW_UNSOUND, row.wallet_id, str(row)
                    )
                    self._findings.add([violation])
                ends[row.wallet_id] = max(ends[row.wallet_id], row.last_version)


def _judge_projection(projected: WalletRow, event: JournalEvent) -> Iterator[Violation]:
    if projected.balances != event.after:
        yield _violation(
            ViolationKind.PROJECTION_DIFFERS,
            event.wallet_id,
            f"version={event.version} {projected.balances}, journal {event.after}",
        )


def _transfer_key(row: Row) -> Key:
    """Events have their transfer's id elsewhere than transfers have their own."""
    return (row[0], row[6] if len(row) == _EVENT_COLUMNS else row[1])


_EVENT_COLUMNS: Final = 12


def _violation(breach: ViolationKind, wallet_id: str, detail: str) -> Violation:
    return Violation(kind=breach, wallet_id=wallet_id, detail=detail)
