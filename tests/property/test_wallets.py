"""Wallets against a model: after every step, answers, balances, statuses and versions agree.

Covers INV-1 to INV-7 and INV-10: for all requests in any order, repeated deliveries, either of two
owners, and any journal fault.
"""

from itertools import permutations
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, multiple, rule

from tests.property.model import Model
from tests.property.model_answers import Item, ModelRequest, Reported
from tests.property.strategies import (
    CONTROLS,
    CURRENCIES,
    ENDS,
    EXPIRES,
    FAULTS,
    KEYS,
    PARTS,
    PATCHES,
    REFERENCES,
    SHARDS,
    STATUSES,
    THEN,
    TYPES,
    VALID_AMOUNTS,
)
from tests.property.two_shards import (
    in_model_words,
    make_settlement,
)
from tests.property.wallet_machine import WalletMachine
from tests.support.faulty_journal import Fault


class Wallets(WalletMachine):
    """Several wallets, two shards that both own all of them, and the model."""

    wallets = Bundle("wallets")
    transfers = Bundle("transfers")
    asked = Bundle("asked")
    """Earlier requests, to be delivered or sent again."""

    # -- single requests -------------------------------------------------------------------------

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
        request = self.creation(currency, reference, key)
        self.check_requests(shard, [request], faults)
        created = request["items"][0]["id"]
        return created if created in self.model.wallets else multiple()

    @rule(target=asked, shard=SHARDS, wallet=wallets, item=st.data(), faults=FAULTS)
    def transfer(
        self, shard: int, wallet: str, item: st.DataObject, faults: list[Fault | None]
    ) -> ModelRequest:
        request = self.make_request(wallet, [self.drawn_transfer(item)])
        self.check_requests(shard, [request], faults)
        return request

    @rule(
        target=transfers,
        shard=SHARDS,
        wallet=wallets,
        kind=TYPES,
        amount=VALID_AMOUNTS,
        expires=EXPIRES,
        then=THEN,
    )
    def hold(
        self, shard: int, wallet: str, kind: str, amount: str, expires: int | None, then: str
    ) -> Any:
        item = self.make_transfer(kind, "pending", amount, None)
        item |= {"expires": expires, "then": then}
        self.check_requests(shard, [self.make_request(wallet, [item])], [])
        is_held = (wallet, item["id"]) in self.model.transfers
        return (wallet, item["id"]) if is_held else multiple()

    @rule(
        target=asked,
        shard=SHARDS,
        transfer=transfers,
        status=ENDS,
        key=KEYS,
        part=PARTS,
        final=st.booleans(),
        faults=FAULTS,
    )
    def settle(
        self,
        shard: int,
        transfer: tuple[str, str],
        status: str,
        key: str | None,
        part: str | None,
        final: bool,
        faults: list[Fault | None],
    ) -> ModelRequest:
        wallet, transfer_id = transfer
        # The ingress gives a part a key, if the client doesn't.
        key = key or (self.new_id() if part is not None else None)
        item = make_settlement(transfer_id, status, key, part, final=final)
        request = self.make_request(wallet, [item])
        self.check_requests(shard, [request], faults)
        return request

    @rule(
        target=transfers,
        shard=SHARDS,
        transfer=transfers,
        status=STATUSES,
        amount=PARTS,
        expires=EXPIRES,
        then=THEN,
        faults=FAULTS,
    )
    def refund(
        self,
        shard: int,
        transfer: tuple[str, str],
        status: str,
        amount: str | None,
        expires: int | None,
        then: str,
        faults: list[Fault | None],
    ) -> Any:
        wallet, transfer_id = transfer
        item = self.make_refund(transfer_id, status, amount, self.new_id())
        item |= {"expires": expires if status == "pending" else None, "then": then}
        self.check_requests(shard, [self.make_request(wallet, [item])], faults)
        is_made = (wallet, item["id"]) in self.model.transfers
        return (wallet, item["id"]) if is_made else multiple()

    @rule(
        target=transfers,
        shard=SHARDS,
        wallet=wallets,
        kind=TYPES,
        amount=VALID_AMOUNTS,
    )
    def pay(self, shard: int, wallet: str, kind: str, amount: str) -> Any:
        """A completed transfer, to be refunded."""
        item = self.make_transfer(kind, "completed", amount, None)
        self.check_requests(shard, [self.make_request(wallet, [item])], [])
        is_made = (wallet, item["id"]) in self.model.transfers
        return (wallet, item["id"]) if is_made else multiple()

    @rule(shard=SHARDS, transfer=transfers, faults=FAULTS)
    def sweep(self, shard: int, transfer: tuple[str, str], faults: list[Fault | None]) -> None:
        wallet, transfer_id = transfer
        item: Item = {"do": "expire", "id": transfer_id, "key": None}
        self.check_requests(shard, [self.make_request(wallet, [item], several=True)], faults)

    @rule(target=asked, shard=SHARDS, wallet=wallets, data=st.data(), faults=FAULTS)
    def control(
        self, shard: int, wallet: str, data: st.DataObject, faults: list[Fault | None]
    ) -> ModelRequest:
        version = self.model.wallets[wallet]["version"]
        item: Item = {
            "do": "control",
            "what": data.draw(st.sampled_from(CONTROLS)),
            "direction": data.draw(st.sampled_from(["both", "debit", "credit"])),
            "reason": data.draw(st.sampled_from([None, "why"])),
            "limit": data.draw(st.sampled_from([None, "0", "1", "5"])),
            "patch": data.draw(PATCHES),
            "match": data.draw(st.sampled_from([None, None, version, version - 1])),
            # The ingress always gives it one.
            "key": data.draw(st.sampled_from(["k1", self.new_id()])),
        }
        request = self.make_request(wallet, [item])
        self.check_requests(shard, [request], faults)
        return request

    @rule(shard=SHARDS, wallet=wallets, transfer=transfers, status=ENDS)
    def settle_in_some_wallet(
        self, shard: int, wallet: str, transfer: tuple[str, str], status: str
    ) -> None:
        self.check_requests(
            shard, [self.make_request(wallet, [make_settlement(transfer[1], status, None)])], []
        )

    @rule(shard=SHARDS, item=st.data())
    def ask_a_wallet_that_does_not_exist(self, shard: int, item: st.DataObject) -> None:
        self.check_requests(
            shard, [self.make_request(self.new_id(), [self.drawn_transfer(item)])], []
        )

    # -- batches and concurrent requests ----------------------------------------------------------

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
    ) -> ModelRequest:
        drawn = self.drawn_items(wallet, items, one_key=key is not None)
        request = self.make_request(wallet, drawn, several=True, atomic=atomic, key=key)
        self.check_requests(shard, [request], faults)
        return request

    @rule(
        shard=SHARDS,
        chosen=st.lists(wallets, min_size=2, max_size=6),
        data=st.data(),
        faults=FAULTS,
    )
    def burst(
        self, shard: int, chosen: list[str], data: st.DataObject, faults: list[Fault | None]
    ) -> None:
        requests = [self.make_request(wallet, [self.drawn_transfer(data)]) for wallet in chosen]
        self.check_requests(shard, requests, faults)

    @rule(
        chosen=st.lists(wallets, min_size=2, max_size=6),
        data=st.data(),
        conflicts=st.lists(st.sampled_from([None, Fault.CONFLICT]), max_size=3),
    )
    def race(self, chosen: list[str], data: st.DataObject, conflicts: list[Fault | None]) -> None:
        """Both shards concurrently. Each wallet's requests must be serializable.

        Amounts are valid: an invalid request stores nothing under its key, so its order relative to
        another request with the same key is undefined.
        """
        self.shards.journal.commit_faults.extend(conflicts)
        requests = [
            self.make_request(wallet, [self.drawn_item(wallet, data, VALID_AMOUNTS)])
            for wallet in chosen
        ]
        by_shard = {0: requests[0::2], 1: requests[1::2]}
        now = self.shards.next_timestamp()
        replies = self.shards.request(by_shard)
        self.shards.journal.commit_faults.clear()
        reported = {shard: in_model_words(replies[shard]) for shard in by_shard}
        for wallet in set(chosen):
            self.model = self.one_after_the_other(
                [
                    [
                        (request, answered)
                        for request, answered in zip(by_shard[shard], reported[shard], strict=True)
                        if request["wallet"] == wallet
                    ]
                    for shard in by_shard
                ],
                now,
            )

    def one_after_the_other(
        self, by_shard: list[list[tuple[ModelRequest, Reported]]], now: str
    ) -> Model:
        """The model after the order of shards that explains both responses."""
        for order in permutations(by_shard):
            model = self.model.copy()
            if all(
                model.answer(request, now) == reported
                for shard in order
                for request, reported in shard
            ):
                return model
        raise AssertionError(f"no order explains {by_shard}")

    # -- retries -------------------------------------------------------------------------------

    @rule(shard=SHARDS, request=asked, faults=FAULTS)
    def deliver_again(self, shard: int, request: ModelRequest, faults: list[Fault | None]) -> None:
        self.check_requests(shard, [{**request, "attempt": 2}], faults)

    @rule(shard=SHARDS, request=asked)
    def send_again(self, shard: int, request: ModelRequest) -> None:
        """The client repeats itself: a new request, with new ids for what comes to be."""
        items = [
            {**item, "id": self.new_id()} if "id" in item and item["do"] != "settle" else item
            for item in request["items"]
        ]
        self.check_requests(shard, [{**request, "items": items, "request": self.new_id()}], [])

    @rule(shard=SHARDS, request=consumes(asked), wallet=wallets, data=st.data())
    def use_a_key_for_something_else(
        self, shard: int, request: ModelRequest, wallet: str, data: st.DataObject
    ) -> None:
        item = {**self.drawn_transfer(data), "key": request["items"][0]["key"]}
        self.check_requests(shard, [self.make_request(request["wallet"], [item])], [])

    # -- shard faults ------------------------------------------------------------------------------

    @rule(shard=SHARDS)
    def replace_a_shard(self, shard: int) -> None:
        self.shards.replace(shard)

    @rule(shard=SHARDS, wallet=wallets, data=st.data())
    def ask_while_nothing_can_be_read(self, shard: int, wallet: str, data: st.DataObject) -> None:
        self.shards.journal.loads_unavailable = 1
        self.check_requests(shard, [self.make_request(wallet, [self.drawn_transfer(data)])], [])


TestWallets = Wallets.TestCase
