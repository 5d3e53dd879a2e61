"""Two real shards over one journal in memory, asked in the model's words."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from actors.protocol import Reply
from actors.shard import Shard
from tests.property.model import Ask, Item, Model, Told, in_minor
from tests.support.memory_journal import MemoryJournal
from tests.support.virtual_time import VirtualTimeLoop
from tests.support.write_side import LIMITS, NoRelay
from wallet import commands
from wallet.ids import IdempotencyKey, TransferId, WalletId

Result = TypeVar("Result")

# Small, so that wallets leave memory and come back, and so do transfers.
_LIMITS = msgspec.structs.replace(LIMITS, wallets_cached_max=2, transfers_cached_max=2)

_ANSWER_WAIT_S = 5.0


class TwoShards:
    """Both believe that they own every wallet. Time passes a second a call of `now_told`."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self._loop = VirtualTimeLoop()
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._shards: dict[int, Shard] = {}
        for number in (0, 1):
            self.replace(number)

    def close(self) -> None:
        for number in (0, 1):
            self._stop(number)
        self._loop.close()

    def replace(self, number: int) -> None:
        """A successor that remembers nothing takes over."""
        if number in self._running:
            self._stop(number)
        self._shards[number] = Shard(
            journal=self.journal, relay=NoRelay(), limits=_LIMITS, now=lambda: self._now
        )
        self._running[number] = self._loop.create_task(self._shards[number].run())

    def _stop(self, number: int) -> None:
        running = self._running[number]
        running.cancel()
        self._run(asyncio.wait([running]))

    def now_told(self) -> str:
        """The time of the next decisions, as it is told in answers."""
        self._now += timedelta(seconds=1)
        return f"{self._now:%Y-%m-%dT%H:%M:%SZ}"

    def ask(self, by_shard: dict[int, list[Ask]]) -> dict[int, list[Reply]]:
        """What each shard replies; all are asked at the same time, each in order."""
        return self._run(self._ask(by_shard))

    async def _ask(self, by_shard: dict[int, list[Ask]]) -> dict[int, list[Reply]]:
        asking = {
            number: asyncio.ensure_future(
                self._shards[number].submit([_submission(ask) for ask in asks])
            )
            for number, asks in by_shard.items()
        }
        waiting = {*asking.values()}
        while waiting:
            done, _ = await asyncio.wait(
                {*waiting, *self._running.values()},
                timeout=_ANSWER_WAIT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert done, "a shard does not answer"
            for ended in done - waiting:
                ended.result()  # A shard that ends has met a bug: this raises it.
            waiting -= done
        return {number: asked.result() for number, asked in asking.items()}

    def _run(self, work: Coroutine[object, object, Result]) -> Result:
        return self._loop.run_until_complete(work)


def _submission(ask: Ask) -> commands.Submission:
    return commands.Submission(
        wallet_id=WalletId(ask["wallet"]),
        items=tuple(
            commands.Item(command=_command(item), keyed=_keyed(item["key"], [item]))
            for item in ask["items"]
        ),
        request_id=ask["request"],
        timeout_s=15.0,
        atomic=ask["atomic"],
        several=ask["several"],
        keyed=_keyed(ask["key"], [ask["atomic"], *ask["items"]]),
        attempt=ask["attempt"],
    )


def _keyed(key: str | None, asked: list[Any]) -> commands.Keyed | None:
    if key is None:
        return None
    plain = [
        {name: value for name, value in one.items() if name != "key" and not _is_minted(one, name)}
        if isinstance(one, dict)
        else one
        for one in asked
    ]
    return commands.Keyed(key=IdempotencyKey(key), fingerprint=msgspec.json.encode(plain))


def _is_minted(item: Item, name: str) -> bool:
    return name == "id" and item["do"] != "settle"


def _command(item: Item) -> commands.Command:
    if item["do"] == "create":
        return commands.CreateWallet(
            new_wallet_id=WalletId(item["id"]),
            currency=item["currency"],
            scale=item["scale"],
            reference_id=item["reference"],
        )
    if item["do"] == "transfer":
        return commands.CreateTransfer(
            transfer_id=TransferId(item["id"]),
            type=item["type"],
            status=item["status"],
            amount=item["amount"],
        )
    return commands.SettleTransfer(transfer_id=TransferId(item["id"]), status=item["status"])


# -- comparing ---------------------------------------------------------------------------------


def as_told(reply: Reply, several: bool) -> Told:
    """A shard's reply in the model's words."""
    wallet = msgspec.json.decode(reply.wallet) if reply.wallet else None
    return {
        "answers": [_answer(answer) for answer in reply.answers],
        "several": reply.several,
        "undone": reply.undone,
        "wallet": wallet if several else None,
        "replayed": reply.replayed,
    }


def _answer(answer: Any) -> dict[str, Any]:
    body = msgspec.json.decode(answer.body)
    if answer.refused:
        body = {name: body[name] for name in ("code", "request_id")}
    return {
        "refused": body["code"] if answer.refused else None,
        "body": body,
        "version": answer.version,
        "replayed": answer.replayed,
    }


def assert_same_state(journal: MemoryJournal, model: Model) -> None:
    """Wallets, transfers, references and keys of both sides are the same, to the last unit."""
    assert set(journal.wallets) == set(model.wallets)
    for wallet_id, expected in model.wallets.items():
        wallet = journal.wallets[WalletId(wallet_id)]
        sums = {name: getattr(wallet, name) for name in ("balance", "pending_debit")}
        sums["pending_credit"] = wallet.pending_credit
        assert sums == {name: in_minor(expected[name], expected["scale"]) for name in sums}
        assert wallet.version == expected["version"]
        versions = [recorded.wallet.version for recorded in journal.events[wallet.id]]
        assert versions == list(range(1, expected["version"] + 1))
    assert {key: str(one.status) for key, one in journal.transfers.items()} == {
        key: one["status"] for key, one in model.transfers.items()
    }
    assert journal.references == model.references
    assert set(journal.keys) == set(model.keys)
