"""Two commands about one hold: what `specification/races.md` says of every pair, and what happens.

The page is the table. Each of its tables has a start in its heading, a row for each first command,
and a column for each second one. The starts and the commands are here, by their names on the page.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from actors.journal.memory import MemoryJournal
from actors.rpc.messages import Applied, Refused, RequestResult
from tests.support.domain import NOW
from tests.support.results import applied
from tests.support.shards import shard_in_memory
from tests.support.write_side import ShardUnderTest, credit, debit, idempotency_for
from wallet.commands import (
    CloseWallet,
    Command,
    CommandItem,
    CommandRequest,
    ExpireTransfer,
    FreezeWallet,
    RefundTransfer,
    RequestedExpiry,
    SettleTransfer,
)
from wallet.ids import TransferId, WalletId
from wallet.money import from_minor
from wallet.state import Transfer

PAGE: Final = Path(__file__).parents[2] / "specification" / "races.md"

EXPIRES_AT: Final = NOW + timedelta(minutes=1)
_EXPIRY: Final = RequestedExpiry(at=EXPIRES_AT)

_HELD: Final = TransferId("01900000-0000-7000-9000-0000000000aa")
_PAID: Final = TransferId("01900000-0000-7000-9000-0000000000bb")

Make = Callable[["Stage", int], Command]


class Start(NamedTuple):
    """What there is before the pair: the commands that make it, and what a refund refunds."""

    commands: tuple[Command, ...]
    refunds: TransferId
    about_the_hold: frozenset[str]
    """Commands that name the hold: each of them records its expiry, if it is due."""


_OWN: Final = frozenset({"complete", "part", "last part", "revert", "expire"})


def _named(command: Command, transfer_id: TransferId) -> Command:
    return msgspec.structs.replace(command, transfer_id=transfer_id)


_TAKES: Final = _named(credit("10", status="pending", expiry=_EXPIRY), _HELD)
_PART: Final = SettleTransfer(transfer_id=_HELD, status="completed", amount="4", final=False)

STARTS: Final[dict[str, Start]] = {
    "A hold of 10": Start((debit("10"), _TAKES), _HELD, _OWN | {"refund"}),
    "A hold of 10, of which 4 are completed": Start(
        (debit("10"), _TAKES, _PART), _HELD, _OWN | {"refund"}
    ),
    "A pending refund of 8 of a transfer of 10": Start(
        (
            debit("10"),
            _named(credit("10"), _PAID),
            RefundTransfer(
                transfer_id=_HELD, refunds=_PAID, status="pending", amount="8", expiry=_EXPIRY
            ),
        ),
        _PAID,
        _OWN,
    ),
}


def _settle(amount: str | None = None, *, final: bool = True, status: str = "completed") -> Make:
    def make(_stage: "Stage", place: int) -> Command:
        keyless = amount is None and status == "completed"
        return SettleTransfer(
            transfer_id=_HELD,
            status=status,  # type: ignore[arg-type]
            amount=amount,
            final=final,
            delivery_id=_numbered(place + 16) if keyless else None,
        )

    return make


def _numbered(place: int) -> TransferId:
    return TransferId(f"01900000-0000-7000-9000-{place:012x}")


COMMANDS: Final[dict[str, Make]] = {
    "complete": _settle(),
    "part": _settle("4", final=False),
    "last part": _settle("4"),
    "revert": _settle(status="failed"),
    "expire": lambda _stage, _place: ExpireTransfer(transfer_id=_HELD),
    "refund": lambda stage, place: RefundTransfer(
        transfer_id=_numbered(place), refunds=stage.start.refunds, status="completed", amount="3"
    ),
    "freeze": lambda _stage, _place: FreezeWallet(direction="both"),
    "close": lambda _stage, _place: CloseWallet(),
}
_KEYLESS: Final = frozenset({"complete", "revert", "expire"})


class Stage:
    """A wallet at a start, with a shard."""

    def __init__(self, start: Start, journal: MemoryJournal, clock: "Clock") -> None:
        self.start: Start = start
        self._database = journal.database
        self._clock = clock
        self.shard: ShardUnderTest
        self.wallet: WalletId

    async def prepare(self, shard: ShardUnderTest) -> None:
        self.shard = shard
        self.wallet = await shard.create_wallet()
        for number, command in enumerate(self.start.commands):
            applied(await shard.request(self.wallet, command, key=f"start-{number}"))

    def request(self, name: str, place: int, *, attempt: int = 1) -> CommandRequest:
        """The command of this name, as the first (1) or the second (2) of the pair."""
        command = COMMANDS[name](self, place)
        key = None if name in _KEYLESS else idempotency_for(f"key-{place}", command)
        return CommandRequest(
            wallet_id=self.wallet,
            items=(CommandItem(command=command, idempotency=key),),
            request_id=f"request-{place}",
            timeout_s=5.0,
            attempt=attempt,
        )

    async def submit(self, *requests: CommandRequest) -> list[RequestResult]:
        """All in one commit. An expiry is due when it comes."""
        commands = [one.items[0].command for one in requests]
        if any(isinstance(one, ExpireTransfer) for one in commands):
            self._clock.now = EXPIRES_AT
        return await self.shard.shard.submit(list(requests))

    @property
    def commits(self) -> int:
        return self._database.commits

    @property
    def version(self) -> int:
        return self._database.wallets[self.wallet].version

    def state(self) -> str:
        """The hold, what is refunded, and the wallet, as the page says it."""
        wallet = self._database.wallets[self.wallet]
        held = self._transfer(_HELD)
        parts = [f"{held.status} {_short(held.completed_amount)}"]
        refunded = self._transfer(self.start.refunds).refunded
        if refunded is not None:
            pending = f"+{_short(refunded.pending)}" if refunded.pending else ""
            parts.append(f"refunded {_short(refunded.completed)}{pending}")
        if wallet.status != "active":
            parts.append(wallet.status.value)
        return f"{', '.join(parts)}; balance {_short(wallet.balance)}"

    def _transfer(self, transfer_id: TransferId) -> Transfer:
        return self._database.transfers[self.wallet, transfer_id]

    def outcome(self, result: RequestResult, version_before: int) -> str:
        """What became of a command, as the page says it."""
        if isinstance(result, Refused):
            return f"`{result.refusal.code}`"
        assert isinstance(result, Applied), result
        return self.state() if self.version > version_before else "as it is"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def _short(minor: int) -> str:
    return from_minor(minor, 2).removesuffix(".00")


@asynccontextmanager
async def stage(start: str) -> AsyncIterator[Stage]:
    journal, clock = MemoryJournal(), Clock()
    async with shard_in_memory(journal, now=clock) as shard:
        staged = Stage(STARTS[start], journal, clock)
        await staged.prepare(shard)
        yield staged


# -- the page --------------------------------------------------------------------------------------

_ROW: Final = re.compile(r"\| \*\*(?P<first>[a-z ]+)\*\*: (?P<outcome>[^|]+) \|(?P<cells>.+)\|")


class Row(NamedTuple):
    """A row of the page: what becomes of the first command, and then of each second one."""

    outcome: str
    seconds: dict[str, str]


def read_page() -> dict[str, dict[str, Row]]:
    """The tables by start and first command."""
    tables: dict[str, dict[str, Row]] = {}
    seconds: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            rows = tables.setdefault(line.removeprefix("## "), {})
        elif line.startswith("| first"):
            seconds = [cell.strip() for cell in line.strip("|").split("|")[1:]]
        elif found := _ROW.fullmatch(line):
            cells = [cell.strip() for cell in found["cells"].split("|")]
            outcomes = dict(zip(seconds, cells, strict=True))
            rows[found["first"]] = Row(found["outcome"].strip(), outcomes)
    return {start: rows for start, rows in tables.items() if rows}
