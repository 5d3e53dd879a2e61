"""Two real shards over one in-memory journal, with the model's requests and responses."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    FailureCode,
    ItemResult,
    Refused,
    RequestResult,
)
from actors.shard.shard import Shard
from tests.property.model import Model
from tests.property.model_answers import Item, ModelRequest, Reported, in_minor
from tests.property.model_refunds import refunded
from tests.support.faulty_journal import Fault, FaultyJournal
from tests.support.write_side import LIMITS, DetachedRelay
from wallet import commands
from wallet.ids import IdempotencyKey, TransferId, WalletId
from wallet.state import Refunded

Result = TypeVar("Result")

# Small, so that wallets and transfers are evicted from memory and reloaded.
_LIMITS = msgspec.structs.replace(LIMITS, wallets_cached_max=2, transfers_cached_max=2)

_ANSWER_WAIT_S = 5.0


class TwoShards:
    """Both act as the owner of every wallet. `next_timestamp` advances the time by a second."""

    def __init__(self) -> None:
        self.journal = FaultyJournal()
        self._loop = asyncio.new_event_loop()
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
        """Replace a shard by a successor with empty memory."""
        if number in self._running:
            self._stop(number)
        self._shards[number] = Shard(
            journal=self.journal, relay=DetachedRelay(), limits=_LIMITS, now=lambda: self._now
        )
        self._running[number] = self._loop.create_task(self._shards[number].run())

    def _stop(self, number: int) -> None:
        running = self._running[number]
        running.cancel()
        self._run(asyncio.wait([running]))

    def next_timestamp(self) -> str:
        """The time of the next decisions, in the format of responses."""
        self._now += timedelta(seconds=1)
        return f"{self._now:%Y-%m-%dT%H:%M:%SZ}"

    def request(self, by_shard: dict[int, list[ModelRequest]]) -> dict[int, list[RequestResult]]:
        """The replies of each shard. Shards run concurrently, each in order."""
        return self._run(self._request(by_shard))

    async def _request(
        self, by_shard: dict[int, list[ModelRequest]]
    ) -> dict[int, list[RequestResult]]:
        asking = {
            number: asyncio.ensure_future(
                self._shards[number].submit([_command_request(request) for request in requests])
            )
            for number, requests in by_shard.items()
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
                ended.result()  # A shard that ends has a bug: raise its exception.
            waiting -= done
        return {number: asked.result() for number, asked in asking.items()}

    def _run(self, work: Coroutine[object, object, Result]) -> Result:
        return self._loop.run_until_complete(work)


def _command_request(request: ModelRequest) -> commands.CommandRequest:
    return commands.CommandRequest(
        wallet_id=WalletId(request["wallet"]),
        items=tuple(
            commands.CommandItem(command=_command(item), idempotency=_keyed(item["key"], [item]))
            for item in request["items"]
        ),
        request_id=request["request"],
        timeout_s=15.0,
        atomic=request["atomic"],
        is_batch=request["several"],
        idempotency=_keyed(request["key"], [request["atomic"], *request["items"]]),
        attempt=request["attempt"],
    )


def _keyed(key: str | None, asked: list[Any]) -> commands.Idempotency | None:
    if key is None:
        return None
    plain = [
        {name: value for name, value in one.items() if name != "key" and not _is_minted(one, name)}
        if isinstance(one, dict)
        else one
        for one in asked
    ]
    return commands.Idempotency(key=IdempotencyKey(key), fingerprint=msgspec.json.encode(plain))


def _is_minted(item: Item, name: str) -> bool:
    return name == "id" and item["do"] in ("create", "transfer", "refund")


def _command(item: Item) -> commands.Command:
    if item["do"] == "create":
        return commands.CreateWallet(
            wallet_id=WalletId(item["id"]),
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
            expiry=_expiry(item),
        )
    if item["do"] == "refund":
        return commands.RefundTransfer(
            transfer_id=TransferId(item["id"]),
            refunds=TransferId(item["of"]),
            status=item["status"],
            amount=item["amount"],
            expiry=_expiry(item),
        )
    if item["do"] == "expire":
        return commands.ExpireTransfer(transfer_id=TransferId(item["id"]))
    if item["do"] == "control":
        return _control(item)
    return commands.SettleTransfer(
        transfer_id=TransferId(item["id"]),
        status=item["status"],
        amount=item["amount"],
        final=item["final"],
    )


def _expiry(item: Item) -> commands.RequestedExpiry | None:
    if item["expires"] is None:
        return None
    return commands.RequestedExpiry(after_s=item["expires"], action=item["then"])


def _control(item: Item) -> commands.ControlWallet:
    match = None if item["match"] is None else (item["match"],)
    if item["what"] == "update":
        return commands.UpdateWallet(
            metadata=item["patch"], overdraft_limit=item["limit"], if_match=match
        )
    if item["what"] == "freeze":
        return commands.FreezeWallet(
            direction=item["direction"], reason=item["reason"], if_match=match
        )
    kind = commands.UnfreezeWallet if item["what"] == "unfreeze" else commands.CloseWallet
    return kind(reason=item["reason"], if_match=match)


# -- comparing ---------------------------------------------------------------------------------


def as_reported(result: RequestResult) -> Reported:
    """A shard's result in the model's form."""
    if isinstance(result, BatchCommitted):
        return {
            "answers": [_answer(item) for item in result.items],
            "several": True,
            "undone": None,
            "wallet": msgspec.json.decode(result.wallet),
            "replayed": result.replayed,
        }
    if isinstance(result, BatchRolledBack):
        return {
            "answers": [_answer(Refused(refusal=result.refusal))],
            "several": True,
            "undone": result.index,
            "wallet": None,
            "replayed": result.replayed,
        }
    assert isinstance(result, Applied | Refused), result
    return {
        "answers": [_answer(result)],
        "several": False,
        "undone": None,
        "wallet": None,
        "replayed": False,
    }


def _answer(result: ItemResult) -> dict[str, Any]:
    if isinstance(result, Refused):
        refusal = result.refusal
        return {
            "refused": refusal.code,
            "body": {"code": refusal.code, "request_id": refusal.request_id},
            "version": 0,
            "replayed": result.replayed,
        }
    body = msgspec.json.decode(result.body)
    assert not body or body["id"] == result.id
    return {"refused": None, "body": body, "version": result.version, "replayed": result.replayed}


def assert_same_state(journal: FaultyJournal, model: Model) -> None:
    """Assert that wallets, transfers, references and keys of both sides are equal."""
    assert set(journal.database.wallets) == set(model.wallets)
    for wallet_id, expected in model.wallets.items():
        wallet = journal.database.wallets[WalletId(wallet_id)]
        balances = {name: getattr(wallet, name) for name in ("balance", "pending_debit")}
        balances["pending_credit"] = wallet.pending_credit
        assert balances == {name: in_minor(expected[name], expected["scale"]) for name in balances}
        assert wallet.version == expected["version"]
        assert wallet.overdraft_limit == in_minor(expected["limit"], expected["scale"])
        assert (wallet.status, wallet.frozen, wallet.frozen_reason, wallet.metadata) == (
            expected["status"],
            expected["frozen"],
            expected["why"],
            expected["metadata"],
        )
        versions = [
            recorded.wallet_after.version
            for recorded in journal.database.events_by_wallet[wallet.id]
        ]
        assert versions == list(range(1, expected["version"] + 1))
    assert {key: str(one.status) for key, one in journal.database.transfers.items()} == {
        key: one["status"] for key, one in model.transfers.items()
    }
    for (wallet_id, transfer_id), one in journal.database.transfers.items():
        assert one.refunds == model.transfers[wallet_id, transfer_id]["of"]
        counted = one.refunded or Refunded()
        scale = model.wallets[wallet_id]["scale"]
        sums = refunded(model.transfers, wallet_id, transfer_id)
        minor = [int(in_minor(amount, scale)) for amount in sums]
        assert [counted.completed, counted.pending] == minor, "INV-16"
        assert counted.total <= one.completed_amount, "INV-16"
    assert {(one.wallet_id, one.transfer_id) for one in journal.database.expiries} == {
        key
        for key, one in model.transfers.items()
        if one["status"] == "pending" and one["expires"] is not None
    }
    assert journal.database.references == model.references
    assert set(journal.database.idempotency_keys) == set(model.keys)


def is_lost(fault: Fault | None) -> bool:
    return fault in (Fault.LOST_AFTER_APPLYING, Fault.LOST_AND_APPLIED_LATE)


def in_model_words(replies: list[RequestResult]) -> list[Reported]:
    return [as_reported(reply) for reply in replies]


def assert_nothing_was_applied(requests: list[ModelRequest], replies: list[RequestResult]) -> None:
    """The transaction failed for all. The invariant checks that the state is unchanged."""
    for request, reply in zip(requests, replies, strict=True):
        assert isinstance(reply, Failure)
        assert reply.code is FailureCode.UNAVAILABLE
        assert reply.applied == ("no" if request["attempt"] == 1 else "unknown")


def make_settlement(
    transfer_id: str, status: str, key: str | None, part: str | None = None, *, final: bool = True
) -> Item:
    amount = part if status == "completed" else None
    settlement: Item = {"do": "settle", "id": transfer_id, "status": status, "amount": amount}
    # The ingress takes no part of which the rest stays held without a key.
    return settlement | {"final": final or key is None or amount is None, "key": key}
