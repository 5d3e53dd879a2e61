"""Wallets against a model: after every step, answers, balances, statuses and versions agree.

Guards INV-1 to INV-7 and INV-10 at once: whatever is asked, in whatever order, however often it
is delivered, by whichever of two owners it is decided and however the journal fails.
"""

from itertools import permutations
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from actors.rpc.messages import Failure, FailureCode, RequestResult
from tests.property.model import Ask, Item, Model, Told
from tests.property.two_shards import TwoShards, as_reported, assert_same_state
from tests.support.faulty_journal import Fault
from wallet.ids import IdempotencyKey, wallet_creation_scope

SHARDS = st.sampled_from([0, 1])
CURRENCIES = st.sampled_from([("USD", 2), ("JPY", 0), ("ETH", 18)])
KEYS = st.sampled_from([None, None, None, "k1", "k2", "k3"])
REFERENCES = st.sampled_from([None, None, "r1", "r2", "r3"])
FAULTS = st.lists(st.sampled_from([None, None, None, *Fault]), max_size=2)
LARGEST = 10**38 - 1
AMOUNTS = st.one_of(
    st.sampled_from(["1", "1", "2", "3", "5", "0.5", "0.01", "0.001", "10"]),
    st.sampled_from([str(LARGEST), str(LARGEST // 100), str(LARGEST // 2)]),
    st.sampled_from(["0.000000000000000001", "99999999999999999999.999999999999999999"]),
)
VALID_AMOUNTS = st.sampled_from(["1", "2", "3", "7"])
STATUSES = st.sampled_from(["pending", "completed"])
TYPES = st.sampled_from(["debit", "debit", "credit"])
ENDS = st.sampled_from(["completed", "failed"])


class Wallets(RuleBasedStateMachine):
    """Several wallets, two shards that both own all of them, and the model."""

    wallets = Bundle("wallets")
    transfers = Bundle("transfers")
    asked = Bundle("asked")
    """What was asked before, to be delivered or sent again."""

    def __init__(self) -> None:
        super().__init__()
        self.shards = TwoShards()
        self.model = Model()
        self.numbers = 0

    def teardown(self) -> None:
        self.shards.close()

    # -- asking for one thing --------------------------------------------------------------------

    @rule(
        target=wallets,
        shard=SHARDS,
        currency=CURRENCIES,
        reference=REFERENCES,
        key=KEYS,
        faults=FAULTS,
    )
    def create(
        self,
        shard: int,
        currency: tuple[str, int],
        reference: str | None,
        key: str | None,
        faults: list[Fault | None],
    ) -> Any:
        ask = self.creation(currency, reference, key)
        self.ask(shard, [ask], faults)
        created = ask["items"][0]["id"]
        return created if created in self.model.wallets else multiple()

    @rule(target=asked, shard=SHARDS, wallet=wallets, item=st.data(), faults=FAULTS)
    def transfer(
        self, shard: int, wallet: str, item: st.DataObject, faults: list[Fault | None]
    ) -> Ask:
        ask = self.an_ask(wallet, [self.drawn_transfer(item)])
        self.ask(shard, [ask], faults)
        return ask

    @rule(target=transfers, shard=SHARDS, wallet=wallets, kind=TYPES, amount=VALID_AMOUNTS)
    def hold(self, shard: int, wallet: str, kind: str, amount: str) -> Any:
        item = self.a_transfer(kind, "pending", amount, None)
        self.ask(shard, [self.an_ask(wallet, [item])], [])
        is_held = (wallet, item["id"]) in self.model.transfers
        return (wallet, item["id"]) if is_held else multiple()

    @rule(target=asked, shard=SHARDS, transfer=transfers, status=ENDS, key=KEYS, faults=FAULTS)
    def settle(
        self,
        shard: int,
        transfer: tuple[str, str],
        status: str,
        key: str | None,
        faults: list[Fault | None],
    ) -> Ask:
        wallet, transfer_id = transfer
        ask = self.an_ask(wallet, [a_settlement(transfer_id, status, key)])
        self.ask(shard, [ask], faults)
        return ask

    @rule(shard=SHARDS, wallet=wallets, transfer=transfers, status=ENDS)
    def settle_in_some_wallet(
        self, shard: int, wallet: str, transfer: tuple[str, str], status: str
    ) -> None:
        self.ask(shard, [self.an_ask(wallet, [a_settlement(transfer[1], status, None)])], [])

    @rule(shard=SHARDS, item=st.data())
    def ask_a_wallet_that_does_not_exist(self, shard: int, item: st.DataObject) -> None:
        self.ask(shard, [self.an_ask(self.new_id(), [self.drawn_transfer(item)])], [])

    # -- asking for several things, and at the same time -------------------------------------------

    @rule(
        target=asked,
        shard=SHARDS,
        wallet=wallets,
        items=st.data(),
        atomic=st.booleans(),
        key=KEYS,
        faults=FAULTS,
    )
    def batch(
        self,
        shard: int,
        wallet: str,
        items: st.DataObject,
        atomic: bool,
        key: str | None,
        faults: list[Fault | None],
    ) -> Ask:
        drawn = self.drawn_items(wallet, items, keyed=key is not None)
        ask = self.an_ask(wallet, drawn, several=True, atomic=atomic, key=key)
        self.ask(shard, [ask], faults)
        return ask

    @rule(
        shard=SHARDS,
        chosen=st.lists(wallets, min_size=2, max_size=6),
        data=st.data(),
        faults=FAULTS,
    )
    def burst(
        self, shard: int, chosen: list[str], data: st.DataObject, faults: list[Fault | None]
    ) -> None:
        asks = [self.an_ask(wallet, [self.drawn_transfer(data)]) for wallet in chosen]
        self.ask(shard, asks, faults)

    @rule(
        chosen=st.lists(wallets, min_size=2, max_size=6),
        data=st.data(),
        conflicts=st.lists(st.sampled_from([None, Fault.CONFLICT]), max_size=3),
    )
    def race(self, chosen: list[str], data: st.DataObject, conflicts: list[Fault | None]) -> None:
        """Both shards at once. For each wallet one was decided after the other, whichever.

        Amounts are valid: a request that isn't leaves no trace under its key, so that nothing
        orders it and another request with the same key.
        """
        self.shards.journal.commit_faults.extend(conflicts)
        asks = [
            self.an_ask(wallet, [self.drawn_item(wallet, data, VALID_AMOUNTS)]) for wallet in chosen
        ]
        by_shard = {0: asks[0::2], 1: asks[1::2]}
        now = self.shards.now_told()
        replies = self.shards.ask(by_shard)
        self.shards.journal.commit_faults.clear()
        told = {shard: in_model_words(replies[shard]) for shard in by_shard}
        for wallet in set(chosen):
            self.model = self.one_after_the_other(
                [
                    [
                        (ask, answered)
                        for ask, answered in zip(by_shard[shard], told[shard], strict=True)
                        if ask["wallet"] == wallet
                    ]
                    for shard in by_shard
                ],
                now,
            )

    def one_after_the_other(self, by_shard: list[list[tuple[Ask, Told]]], now: str) -> Model:
        """The model after that order of the shards which explains what both told."""
        for order in permutations(by_shard):
            model = self.model.copy()
            if all(model.ask(ask, now) == told for shard in order for ask, told in shard):
                return model
        raise AssertionError(f"no order explains {by_shard}")

    # -- again ---------------------------------------------------------------------------------

    @rule(shard=SHARDS, ask=asked, faults=FAULTS)
    def deliver_again(self, shard: int, ask: Ask, faults: list[Fault | None]) -> None:
        self.ask(shard, [{**ask, "attempt": 2}], faults)

    @rule(shard=SHARDS, ask=asked)
    def send_again(self, shard: int, ask: Ask) -> None:
        """The client repeats itself: a new request, with new ids for what comes to be."""
        items = [
            item if item["do"] == "settle" else {**item, "id": self.new_id()}
            for item in ask["items"]
        ]
        self.ask(shard, [{**ask, "items": items, "request": self.new_id()}], [])

    @rule(shard=SHARDS, ask=consumes(asked), wallet=wallets, data=st.data())
    def use_a_key_for_something_else(
        self, shard: int, ask: Ask, wallet: str, data: st.DataObject
    ) -> None:
        item = {**self.drawn_transfer(data), "key": ask["items"][0]["key"]}
        self.ask(shard, [self.an_ask(ask["wallet"], [item])], [])

    # -- what may happen to the shards -------------------------------------------------------------

    @rule(shard=SHARDS)
    def replace_a_shard(self, shard: int) -> None:
        self.shards.replace(shard)

    @rule(shard=SHARDS, wallet=wallets, data=st.data())
    def ask_while_nothing_can_be_read(self, shard: int, wallet: str, data: st.DataObject) -> None:
        self.shards.journal.loads_unavailable = 1
        self.ask(shard, [self.an_ask(wallet, [self.drawn_transfer(data)])], [])

    @invariant()
    def both_sides_are_the_same(self) -> None:
        assert_same_state(self.shards.journal, self.model)

    # -- helpers -------------------------------------------------------------------------------

    def ask(self, shard: int, asks: list[Ask], faults: list[Fault | None]) -> None:
        """Ask a shard and the model, and compare what they say."""
        now = self.shards.now_told()
        self.shards.journal.commit_faults.extend(faults)
        replies = self.shards.ask({shard: asks})[shard]
        self.shards.journal.commit_faults.clear()
        self.shards.journal.loads_unavailable = 0
        if any(isinstance(reply, Failure) for reply in replies):
            assert_nothing_was_applied(asks, replies)
            return
        self.model = self.explaining(asks, replies, now, lost=sum(map(is_lost, faults)))

    def explaining(
        self, asks: list[Ask], replies: list[RequestResult], now: str, *, lost: int
    ) -> Model:
        """The model after ``asks``, whose answers must be the shard's.

        A commit whose answer was lost is decided again on what it left: what was accepted is
        recognised, and what was refused comes after it, as if it had been sent a little later.
        """
        model, told = self.model.copy(), []
        for attempt in range(1, lost + 2):
            again = [{**ask, "attempt": max(ask["attempt"], attempt)} for ask in asks]
            told.append([model.ask(ask, now) for ask in again])
            if told[-1] == in_model_words(replies):
                return model
        raise AssertionError(f"{in_model_words(replies)} is none of {told}")

    def new_id(self) -> str:
        self.numbers += 1
        return f"01900000-0000-7000-8000-{self.numbers:012x}"

    def an_ask(self, wallet: str, items: list[Item], **whole: Any) -> Ask:
        return {
            "wallet": wallet,
            "items": items,
            "request": self.new_id(),
            "attempt": 1,
            "several": False,
            "atomic": False,
            "key": None,
        } | whole

    def creation(self, currency: tuple[str, int], reference: str | None, key: str | None) -> Ask:
        new_id = self.new_id()
        item: Item = {
            "do": "create",
            "id": new_id,
            "currency": currency[0],
            "scale": currency[1],
            "reference": reference,
            "key": key,
        }
        scope = wallet_creation_scope(IdempotencyKey(key)) if key is not None else new_id
        return self.an_ask(scope, [item])

    def a_transfer(self, kind: str, status: str, amount: str, key: str | None) -> Item:
        return {
            "do": "transfer",
            "id": self.new_id(),
            "type": kind,
            "status": status,
            "amount": amount,
            "key": key,
        }

    def drawn_transfer(
        self, data: st.DataObject, amounts: st.SearchStrategy[str] = AMOUNTS
    ) -> Item:
        return self.a_transfer(
            data.draw(TYPES), data.draw(STATUSES), data.draw(amounts), data.draw(KEYS)
        )

    def drawn_item(
        self, wallet: str, data: st.DataObject, amounts: st.SearchStrategy[str] = AMOUNTS
    ) -> Item:
        """A transfer of ``wallet``, or the settlement of one that it has."""
        known = [key[1] for key in self.model.transfers if key[0] == wallet]
        settles: bool = data.draw(st.booleans()) if known else False
        if settles:
            return a_settlement(data.draw(st.sampled_from(known)), data.draw(ENDS), None)
        return self.drawn_transfer(data, amounts)

    def drawn_items(self, wallet: str, data: st.DataObject, *, keyed: bool) -> list[Item]:
        if not keyed:
            return [self.drawn_item(wallet, data) for _ in range(data.draw(st.integers(1, 4)))]
        # Under a key of the whole: what is refused is refused for want of money only.
        return [
            self.a_transfer(data.draw(TYPES), data.draw(STATUSES), amount, None)
            for amount in data.draw(st.lists(VALID_AMOUNTS, min_size=1, max_size=4))
        ]


def a_settlement(transfer_id: str, status: str, key: str | None) -> Item:
    return {"do": "settle", "id": transfer_id, "status": status, "key": key}


def is_lost(fault: Fault | None) -> bool:
    return fault in (Fault.LOST_AFTER_APPLYING, Fault.LOST_AND_APPLIED_LATE)


def in_model_words(replies: list[RequestResult]) -> list[Told]:
    return [as_reported(reply) for reply in replies]


def assert_nothing_was_applied(asks: list[Ask], replies: list[RequestResult]) -> None:
    """One transaction failed for all; that the state is unchanged the invariant checks."""
    for ask, reply in zip(asks, replies, strict=True):
        assert isinstance(reply, Failure)
        assert reply.code is FailureCode.UNAVAILABLE
        assert reply.applied == ("no" if ask["attempt"] == 1 else "unknown")


TestWallets = Wallets.TestCase
