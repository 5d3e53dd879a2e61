"""The sides of the property test of wallets, and the requests that it sends to both."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from actors.rpc.messages import Failure, RequestResult
from tests.property.model import Model
from tests.property.model_answers import Item, ModelRequest
from tests.property.strategies import (
    AMOUNTS,
    ENDS,
    KEYS,
    PARTS,
    STATUSES,
    TYPES,
    VALID_AMOUNTS,
)
from tests.property.two_shards import (
    TwoShards,
    assert_nothing_was_applied,
    assert_same_state,
    in_model_words,
    is_lost,
    make_settlement,
)
from tests.support.faulty_journal import Fault
from wallet.ids import IdempotencyKey, wallet_creation_scope


class WalletMachine(RuleBasedStateMachine):
    """Two shards that both own all wallets, the model, and how they are asked and compared."""

    def __init__(self) -> None:
        super().__init__()
        self.shards = TwoShards()
        self.model = Model()
        self.numbers = 0

    def teardown(self) -> None:
        self.shards.close()

    @invariant()
    def both_sides_are_the_same(self) -> None:
        assert_same_state(self.shards.journal, self.model)

    def check_requests(
        self, shard: int, requests: list[ModelRequest], faults: list[Fault | None]
    ) -> None:
        """Send requests to a shard and the model, and compare the responses."""
        now = self.shards.next_timestamp()
        self.shards.journal.commit_faults.extend(faults)
        replies = self.shards.request({shard: requests})[shard]
        self.shards.journal.commit_faults.clear()
        self.shards.journal.loads_unavailable = 0
        if any(isinstance(reply, Failure) for reply in replies):
            assert_nothing_was_applied(requests, replies)
            return
        self.model = self.explaining(requests, replies, now, lost=sum(map(is_lost, faults)))

    def explaining(
        self, requests: list[ModelRequest], replies: list[RequestResult], now: str, *, lost: int
    ) -> Model:
        """The model after ``requests``; its responses must equal the shard's.

        A batch whose commit response was lost is decided again on the committed state: accepted
        commands are recognised, and refused ones are decided as if they had been sent later.
        """
        model, reported = self.model.copy(), []
        for attempt in range(1, lost + 2):
            again = [
                {**request, "attempt": max(request["attempt"], attempt)} for request in requests
            ]
            reported.append([model.answer(request, now) for request in again])
            if reported[-1] == in_model_words(replies):
                return model
        raise AssertionError(f"{in_model_words(replies)} is not in {reported}")

    def new_id(self) -> str:
        self.numbers += 1
        return f"01900000-0000-7000-8000-{self.numbers:012x}"

    def make_request(self, wallet: str, items: list[Item], **whole: Any) -> ModelRequest:
        return {
            "wallet": wallet,
            "items": items,
            "request": self.new_id(),
            "attempt": 1,
            "several": False,
            "atomic": False,
            "key": None,
        } | whole

    def creation(
        self, currency: tuple[str, int], reference: str | None, key: str | None
    ) -> ModelRequest:
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
        return self.make_request(scope, [item])

    def make_transfer(self, kind: str, status: str, amount: str, key: str | None) -> Item:
        return {
            "do": "transfer",
            "id": self.new_id(),
            "type": kind,
            "status": status,
            "amount": amount,
            "key": key,
            "expires": None,
            "then": "fail",
        }

    def make_refund(
        self, transfer_id: str, status: str, amount: str | None, key: str | None
    ) -> Item:
        return {
            "do": "refund",
            "id": self.new_id(),
            "of": transfer_id,
            "status": status,
            "amount": amount,
            "key": key,
            "expires": None,
            "then": "fail",
        }

    def drawn_transfer(
        self, data: st.DataObject, amounts: st.SearchStrategy[str] = AMOUNTS
    ) -> Item:
        return self.make_transfer(
            data.draw(TYPES), data.draw(STATUSES), data.draw(amounts), data.draw(KEYS)
        )

    def drawn_item(
        self, wallet: str, data: st.DataObject, amounts: st.SearchStrategy[str] = AMOUNTS
    ) -> Item:
        """A new transfer of ``wallet``, or the settlement of an existing one."""
        known = [key[1] for key in self.model.transfers if key[0] == wallet]
        does = data.draw(st.sampled_from(["transfer", "settle", "refund"])) if known else "transfer"
        if does == "refund":
            amount = data.draw(st.sampled_from([None, "1", "2"]))
            chosen = data.draw(st.sampled_from(known))
            return self.make_refund(chosen, data.draw(STATUSES), amount, self.new_id())
        if does == "settle":
            part = data.draw(PARTS if amounts is AMOUNTS else st.sampled_from([None, "1"]))
            key = self.new_id() if part is not None else None
            return make_settlement(data.draw(st.sampled_from(known)), data.draw(ENDS), key, part)
        return self.drawn_transfer(data, amounts)

    def drawn_items(self, wallet: str, data: st.DataObject, *, one_key: bool) -> list[Item]:
        if not one_key:
            return [self.drawn_item(wallet, data) for _ in range(data.draw(st.integers(1, 4)))]
        # Under a batch key: valid amounts, so that refusals are for insufficient funds only.
        known = [key[1] for key in self.model.transfers if key[0] == wallet]
        refunds = [
            self.make_refund(data.draw(st.sampled_from(known)), "completed", "1", None)
            for _ in range(data.draw(st.integers(0, 2)) if known else 0)
        ]
        return refunds + [
            self.make_transfer(data.draw(TYPES), data.draw(STATUSES), amount, None)
            for amount in data.draw(st.lists(VALID_AMOUNTS, min_size=1, max_size=4))
        ]
