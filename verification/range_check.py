"""Check one range of wallets in one snapshot of Postgres.

Two passes over the journal, each with a page of rows in memory: by version, for the balances, and
by transfer, for each lifecycle. So one wallet may have any number of events and transfers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from verification import rows
from verification.chain import ChainReplay, Head
from verification.expiry_rules import check_expiry_rows, check_overdue
from verification.facts import Balances, Control, JournalEvent, WalletRow
from verification.findings import Findings
from verification.idempotency_row_rules import check_key_rows, referenced_versions
from verification.journal_rules import TransferLifecycles, WalletReplay
from verification.merge_join import CursorPages, merge_join
from verification.projection_rules import check_transfer_projection
from verification.refund_rules import check_refunds
from verification.row_rules import check_transfer_rows
from verification.rows import Row, events_at
from verification.violations import Violation, ViolationKind
from verification.wallet_ranges import Range

_NO_WALLET: Final = WalletRow(wallet_id="", version=0, balances=Balances())


class Totals(msgspec.Struct):
    """Counts of a check."""

    wallets: int = 0
    events: int = 0
    transfers: int = 0
    keys: int = 0
    unpublished: int = 0
    """Events in the outbox."""
    wallets_behind: int = 0
    """Wallets whose projection lags."""
    events_behind: int = 0
    behind_since: datetime | None = None
    """Of the wallets that lag, the oldest time of the last event."""
    now: datetime | None = None
    """Postgres' clock at the last snapshot."""
    holds: Counter[str] = msgspec.field(default_factory=Counter)
    """By currency: what wallets hold, less what came in, plus what went out. Must be zero."""


class RangeCheck:
    """Checks a range: adds counts to ``totals`` and violations to ``findings``."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        wallets: Range,
        *,
        findings: Findings,
        totals: Totals,
        lag_max: timedelta,
        heads: Mapping[str, Head] | None = None,
    ) -> None:
        """``heads``: of these wallets, from an earlier digest."""
        self._connection = connection
        self._bounds = (wallets.after, wallets.until)
        self._findings = findings
        self._totals = totals
        self._lag_max = lag_max
        self._wallets: dict[str, rows.Wallet] = {}
        self._projected: dict[str, WalletRow] = {}
        self._projected_heads: dict[str, Head | None] = {}
        self._heads = heads or {}
        self._rewound: set[str] = set()
        """Wallets with recovered events."""

    async def run(self) -> None:
        """Check the range. Needs a repeatable-read transaction."""
        self._totals.now = await self._connection.fetchval("SELECT clock_timestamp()")
        await self._load()
        await self._check_journal()
        await self._check_transfers()
        self._check_wallet_projections()
        await self._check_outbox()
        async for page in self._pages(rows.KEYS):
            keys = [rows.key_from_row(row) for row in page]
            events = await events_at(self._connection, referenced_versions(keys))
            versions = {one: found.row.version for one, found in self._wallets.items()}
            self._findings.add(check_key_rows(keys, events, versions))
            self._totals.keys += len(keys)

    def _pages(self, statement: str) -> CursorPages:
        return CursorPages(self._connection, statement, *self._bounds)

    async def _load(self) -> None:
        async for page in self._pages(rows.WALLETS):
            for wallet in map(rows.wallet_from_row, page):
                self._wallets[wallet.row.wallet_id] = wallet
                balances = wallet.row.balances
                held = balances.balance + balances.pending_credit
                self._totals.holds[wallet.row.currency] += held
        async for page in self._pages(rows.PROJECTED_WALLETS):
            for row in page:
                projected = rows.projected_wallet_from_row(row)
                self._projected[projected.wallet_id] = projected
                self._projected_heads[projected.wallet_id] = rows.projected_head_from_row(row)
        self._totals.wallets += len(self._wallets)

    # -- by version --------------------------------------------------------------------------------

    async def _check_journal(self) -> None:
        unseen = self._wallets.keys() | self._heads.keys()
        replay, chain = WalletReplay(""), ChainReplay("")
        wallet: rows.Wallet | None = None
        async for page in self._pages(rows.EVENTS_BY_VERSION):
            for row in page:
                event = rows.event_from_row(row)
                if event.wallet_id != replay.wallet_id:
                    self._findings.add(self._check_wallet_row(replay))
                    self._findings.add(chain.end())
                    unseen.discard(event.wallet_id)
                    wallet = self._wallets.get(event.wallet_id)
                    replay = WalletReplay(event.wallet_id)
                    chain = self._chain_of(event.wallet_id)
                self._findings.add(replay.add(event))
                if event.type == "wallet.rewound":
                    self._rewound.add(event.wallet_id)
                if wallet is not None:
                    facts = rows.content_from_row(row, wallet)
                    self._findings.add(chain.add(event, facts, rows.chain_from_row(row)))
                projected = self._projected.get(event.wallet_id)
                if projected is not None and projected.version == event.version:
                    self._findings.add(_check_projected(projected, event, replay.control))
            self._totals.events += len(page)
        self._findings.add(self._check_wallet_row(replay))
        self._findings.add(chain.end())
        for wallet_id in sorted(unseen):
            if wallet_id in self._wallets:
                self._findings.add(self._check_wallet_row(WalletReplay(wallet_id)))
            self._findings.add(self._chain_of(wallet_id).end())

    def _chain_of(self, wallet_id: str) -> ChainReplay:
        """A replay that compares what the rows and an earlier digest say of this wallet's hash."""
        wallet = self._wallets.get(wallet_id)
        projected = self._projected.get(wallet_id)
        known = wallet is not None and wallet.head.version > 0
        ahead = projected and projected.version > (wallet.row.version if wallet else 0)
        return ChainReplay(
            wallet_id,
            {
                ViolationKind.WALLET_HASH_WRONG: wallet.head if wallet and known else None,
                # One that is ahead, or without a wallet, is a violation already.
                ViolationKind.PROJECTION_HASH_WRONG: (
                    None if ahead else self._projected_heads.get(wallet_id)
                ),
                ViolationKind.DIGEST_DIFFERS: self._heads.get(wallet_id),
            },
        )

    def _check_wallet_row(self, replay: WalletReplay) -> Iterator[Violation]:
        """The wallet's row equals its last event."""
        if not replay.wallet_id:
            return
        wallet = self._wallets.get(replay.wallet_id)
        if wallet is None:
            yield _violation(
                ViolationKind.WALLET_ROW_MISSING, replay.wallet_id, f"version={replay.version}"
            )
            return
        row = wallet.row
        if (row.version, row.balances, row.control) != (
            replay.version,
            replay.balances,
            replay.control,
        ):
            yield _violation(
                ViolationKind.WALLET_ROW_DIFFERS,
                replay.wallet_id,
                f"row: {row.version} {row.balances} {row.control}, "
                f"journal: {replay.version} {replay.balances} {replay.control}",
            )

    # -- by transfer -------------------------------------------------------------------------------

    async def _check_transfers(self) -> None:
        statements = {
            "events": self._pages(rows.EVENTS_BY_TRANSFER),
            "refunds": self._pages(rows.REFUNDS_BY_TRANSFER),
            "row": self._pages(rows.TRANSFERS),
            "projected": self._pages(rows.PROJECTED_TRANSFERS),
            "expiry": self._pages(rows.EXPIRIES),
        }
        async for group in merge_join(statements, rows.transfer_key):
            for (wallet_id, transfer_id), found in sorted(group.items()):
                self._findings.add(self._check_transfer(wallet_id, transfer_id, found))

    def _check_transfer(
        self, wallet_id: str, transfer_id: str, found: dict[str, list[Row]]
    ) -> Iterator[Violation]:
        events = [rows.event_from_row(row) for row in found.get("events", ())]
        lifecycles = TransferLifecycles(wallet_id, was_rewound=wallet_id in self._rewound)
        for event in events:
            yield from lifecycles.add(event)
        refunds = [rows.event_from_row(row) for row in found.get("refunds", ())]
        if refunds or any(event.refunded and not event.refunds for event in events):
            yield from check_refunds(events, refunds)
        written = [rows.transfer_from_row(row) for row in found.get("row", ())]
        for row in written:
            self._totals.transfers += 1
            if row.completed:
                wallet = self._wallets.get(wallet_id)
                sign = -1 if row.type == "debit" else 1
                self._totals.holds[wallet.row.currency if wallet else ""] += sign * row.completed
        yield from check_transfer_rows({wallet_id: events}, written, {wallet_id: refunds})
        expiries = [rows.expiry_from_row(row) for row in found.get("expiry", ())]
        yield from check_expiry_rows(written, expiries)
        assert self._totals.now is not None, "read at the start"
        yield from check_overdue(written, self._totals.now - self._lag_max)
        projected = found.get("projected", [None])[0]
        if not events:
            if projected is not None:
                detail = f"transfer={transfer_id}"
                yield _violation(ViolationKind.PROJECTION_UNKNOWN, wallet_id, detail)
            return
        yield from check_transfer_projection(
            events,
            rows.transfer_from_row(projected) if projected else None,
            version=projected[14] if projected else 0,
            wallet_version=self._projected.get(wallet_id, _NO_WALLET).version,
            refunds=refunds,
        )

    # -- by wallet ---------------------------------------------------------------------------------

    def _check_wallet_projections(self) -> None:
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
        """A lagging projection is no violation unless the lag exceeds ``lag_max``."""
        totals = self._totals
        totals.wallets_behind += 1
        totals.events_behind += wallet.row.version - projected.version
        totals.behind_since = min(totals.behind_since or wallet.updated_at, wallet.updated_at)
        assert totals.now is not None, "read at the start"
        if totals.now - wallet.updated_at < self._lag_max:
            return
        kind = (
            ViolationKind.PROJECTION_BEHIND
            if projected.version
            else ViolationKind.PROJECTION_MISSING
        )
        detail = f"{projected.version} of {wallet.row.version} since {wallet.updated_at}"
        self._findings.add([_violation(kind, wallet.row.wallet_id, detail)])

    async def _check_outbox(self) -> None:
        ends: defaultdict[str, int] = defaultdict(int)
        async for page in self._pages(rows.OUTBOX):
            for row in map(rows.outbox_from_row, page):
                self._totals.unpublished += row.last_version - row.first_version + 1
                wallet = self._wallets.get(row.wallet_id)
                known = wallet.row.version if wallet else 0
                if not ends[row.wallet_id] < row.first_version <= row.last_version <= known:
                    violation = _violation(
                        ViolationKind.OUTBOX_ROW_UNSOUND, row.wallet_id, str(row)
                    )
                    self._findings.add([violation])
                ends[row.wallet_id] = max(ends[row.wallet_id], row.last_version)


def _check_projected(
    projected: WalletRow, event: JournalEvent, control: Control
) -> Iterator[Violation]:
    if (projected.balances, projected.control) != (event.after, control):
        yield _violation(
            ViolationKind.PROJECTION_DIFFERS,
            event.wallet_id,
            f"version={event.version} {projected.balances} {projected.control}, "
            f"journal {event.after} {control}",
        )


def _violation(kind: ViolationKind, wallet_id: str, detail: str) -> Violation:
    return Violation(kind=kind, wallet_id=wallet_id, detail=detail)
