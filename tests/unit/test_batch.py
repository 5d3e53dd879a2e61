"""Deciding a batch: required reads, writes, and rollbacks."""

import msgspec
import pytest

from actors.journal.ports import EventRange, ReadSet
from actors.rpc.messages import Applied
from actors.shard.required_reads import required_reads
from tests.support.batches import make_batch, make_cache, request
from tests.support.domain import (
    NOW,
    OTHER_WALLET_ID,
    WALLET_ID,
    changed,
    make_transfer,
    make_wallet,
    transfer_id,
    wallet_id,
)
from tests.support.results import applied, balances, body, codes, committed, rolled_back
from tests.support.write_side import create_wallet, credit, debit, settle
from wallet.events import TransferChanged
from wallet.ids import IdempotencyKey
from wallet.representation import encode_body
from wallet.state import TransferStatus

PENDING, COMPLETED, FAILED = TransferStatus


# -- what is read ----------------------------------------------------------------------------


def test_nothing_is_read_when_everything_is_warm() -> None:
    cache = make_cache(make_wallet(), pending=(make_transfer(id=transfer_id(1)),))
    asked = [request(debit()), request(settle(transfer_id(1), "completed")), request(credit())]
    assert not required_reads(asked, cache, maybe_applied=False)


def test_cold_wallets_keys_unknown_transfers_and_references_are_read() -> None:
    cache = make_cache(make_wallet())
    asked = [
        request(debit(), keys=("k",)),
        request(settle(transfer_id(1), "completed")),
        request(settle(transfer_id(2), "failed"), wallet=OTHER_WALLET_ID),
        request(create_wallet(wallet_id(9), reference_id="r"), wallet=wallet_id(9)),
    ]
    assert required_reads(asked, cache, maybe_applied=False) == ReadSet(
        wallets={OTHER_WALLET_ID},
        keys={(WALLET_ID, IdempotencyKey("k"))},
        transfers={(WALLET_ID, transfer_id(1)), (OTHER_WALLET_ID, transfer_id(2))},
        references={"r"},
    )


@pytest.mark.parametrize(("attempt", "retried"), [(2, False), (1, True)])
def test_what_may_have_been_applied_already_is_looked_up(attempt: int, retried: bool) -> None:
    cache = make_cache(make_wallet())
    asked = [
        request(debit(transfer_id=transfer_id(1)), attempt=attempt),
        request(create_wallet(wallet_id(9)), wallet=wallet_id(9), attempt=attempt),
    ]
    assert required_reads(asked, cache, maybe_applied=retried) == ReadSet(
        wallets={wallet_id(9)}, created_transfers={(WALLET_ID, transfer_id(1))}
    )


# -- what is written ---------------------------------------------------------------------------


def test_each_command_is_decided_on_what_the_one_before_left() -> None:
    batch = make_batch(make_cache(make_wallet(balance=100)))
    replies = [batch.decide(request(credit("1"))), batch.decide(request(credit("1")))]
    assert [codes(reply) for reply in replies] == [["done"], ["insufficient_funds"]]
    assert batch.write.expected_versions == {WALLET_ID: 5}
    assert batch.write.wallets[WALLET_ID].version == 6
    assert batch.write.spans() == [EventRange(WALLET_ID, 6, 6)]
    assert [str(code) for code in batch.refusals] == ["insufficient_funds"]


def test_the_answer_is_what_the_stream_will_say() -> None:
    batch = make_batch(make_cache(make_wallet()))
    result = applied(batch.decide(request(debit("1"), api_key_id="key-7")))
    (recorded,) = batch.write.events
    assert result.body == recorded.body == encode_body(recorded.event, recorded.wallet_after)
    assert recorded.made_by == "key-7"
    assert isinstance(recorded.event, TransferChanged)
    assert (result.id, result.version) == (recorded.event.transfer.id, 6)


def test_a_refusal_rests_on_a_version_too_and_changes_nothing() -> None:
    wallet = make_wallet()
    batch = make_batch(make_cache(wallet))
    assert codes(batch.decide(request(credit("1")))) == ["insufficient_funds"]
    assert batch.write.expected_versions == {WALLET_ID: 5}
    assert batch.write.wallets == {WALLET_ID: wallet}
    assert batch.write.events == []
    assert batch.write.spans() == []


def test_a_wallet_that_does_not_exist_leaves_nothing_to_write() -> None:
    batch = make_batch()
    assert codes(batch.decide(request(debit(), keys=("k",)))) == ["wallet_not_found"]
    assert (batch.write.wallets, batch.write.stored_answers) == ({}, {})


def test_a_refusal_carries_the_request_that_was_refused() -> None:
    batch = make_batch()
    assert body(batch.decide(request(debit(), request_id="r7")))["request_id"] == "r7"


def test_loaded_wallets_serve_when_the_cache_has_none() -> None:
    batch = make_batch(wallets={WALLET_ID: make_wallet(balance=7, version=3)})
    reply = batch.decide(request(debit("0.01")))
    assert body(reply)["wallet"]["balance"] == "0.08"
    assert batch.write.expected_versions == {WALLET_ID: 3}


def test_a_transfer_may_come_to_be_and_be_settled_in_one_batch() -> None:
    batch = make_batch(make_cache(make_wallet(balance=100)))
    batch.decide(request(credit("1", status="pending", transfer_id=transfer_id(1))))
    done = batch.decide(request(settle(transfer_id(1), "failed")))
    assert body(done)["wallet"] == {
        "version": 7,
        "balance": "1.00",
        "pending_credit": "0.00",
        "pending_debit": "0.00",
    }
    assert batch.transfers[WALLET_ID, transfer_id(1)].status is FAILED


def test_a_transfer_that_is_pending_in_memory_is_settled_without_a_read() -> None:
    cache = make_cache(make_wallet(pending_debit=100), pending=(make_transfer(id=transfer_id(1)),))
    reply = make_batch(cache).decide(request(settle(transfer_id(1), "completed")))
    assert body(reply)["wallet"]["balance"] == "1.00"


def test_deciding_changes_nothing_in_the_cache() -> None:
    pending = make_transfer(id=transfer_id(1))
    cache = make_cache(make_wallet(pending_debit=100), pending=(pending,))
    batch = make_batch(cache)
    batch.decide(request(debit()))
    batch.decide(request(settle(transfer_id(1), "completed")))
    active = cache.get(WALLET_ID)
    assert active is not None
    assert active.state == make_wallet(pending_debit=100)
    assert active.pending == {pending.id: pending}


# -- creation ----------------------------------------------------------------------------------


def test_one_reference_makes_one_wallet_within_a_batch() -> None:
    batch = make_batch()
    ids = wallet_id(8), wallet_id(9)
    replies = [
        batch.decide(request(create_wallet(one, reference_id="r"), wallet=one)) for one in ids
    ]
    assert [codes(reply) for reply in replies] == [["done"], ["reference_id_taken"]]
    assert batch.write.created_wallets == [wallet_id(8)]
    assert list(batch.write.wallets) == [wallet_id(8)]


def test_a_wallet_and_its_first_money_may_travel_together() -> None:
    batch = make_batch()
    new = wallet_id(9)
    batch.decide(request(create_wallet(new), wallet=new))
    assert codes(batch.decide(request(debit("3"), wallet=new))) == ["done"]
    assert (batch.write.expected_versions, batch.write.created_wallets) == ({}, [new])
    assert batch.write.wallets[new].version == 2
    assert batch.write.spans() == [EventRange(new, 1, 2)]


def test_a_creation_that_was_applied_before_answers_as_it_did_then() -> None:
    new = wallet_id(9)
    first = make_batch()
    answer = first.decide(request(create_wallet(new, reference_id="r"), wallet=new))
    grown = msgspec.structs.replace(first.write.wallets[new], version=4, balance=99, updated_at=NOW)
    again = make_batch(wallets={new: grown}, references={"r": new})
    repeated = again.decide(request(create_wallet(new, reference_id="r"), wallet=new, attempt=2))
    assert repeated == answer
    assert (again.write.wallets, again.write.created_wallets) == ({}, [])


# -- redelivery --------------------------------------------------------------------------------


def test_a_transfer_that_was_applied_before_answers_as_it_did_then() -> None:
    earlier = changed(make_transfer(id=transfer_id(1)), make_wallet(version=3, pending_debit=100))
    batch = make_batch(
        make_cache(make_wallet(version=5, balance=777)),
        created_transfers={(WALLET_ID, transfer_id(1)): earlier},
    )
    reply = batch.decide(
        request(debit("1", status="pending", transfer_id=transfer_id(1)), attempt=2)
    )
    assert reply == Applied(id=transfer_id(1), version=3, body=earlier.body)
    assert (batch.write.wallets, batch.write.events) == ({}, [])


# -- several items -----------------------------------------------------------------------------


def test_several_items_are_answered_one_by_one_with_the_wallet_after_all() -> None:
    batch = make_batch(make_cache(make_wallet()))
    reply = batch.decide(request(debit("5"), credit("9"), credit("2")))
    assert codes(reply) == ["done", "insufficient_funds", "done"]
    assert balances(reply)["balance"] == "3.00"
    assert batch.write.wallets[WALLET_ID].version == 7


def test_a_refused_atomic_request_leaves_the_batch_as_it_was() -> None:
    cache = make_cache(
        make_wallet(balance=500, pending_debit=200),
        pending=(make_transfer(id=transfer_id(1)), make_transfer(id=transfer_id(2))),
    )
    batch = make_batch(cache)
    batch.decide(request(debit("1"), keys=("before",)))
    batch.decide(request(settle(transfer_id(2), "completed")))
    write = msgspec.msgpack.encode(batch.write)
    transfers = dict(batch.transfers)

    reply = batch.decide(
        request(
            settle(transfer_id(1), "failed"),
            debit("3", status="pending", transfer_id=transfer_id(3)),
            settle(transfer_id(3), "completed"),
            credit("1000"),
            debit("4"),
            keys=("k1", "k2", "k3", "k4", "k5"),
            atomic=True,
        )
    )
    assert codes(reply) == ["rolled back"] * 3 + ["insufficient_funds"]
    assert msgspec.msgpack.encode(batch.write) == write
    assert batch.transfers == transfers

    after = batch.decide(
        request(
            settle(transfer_id(1), "completed"),
            debit("3", transfer_id=transfer_id(3)),
            keys=("k1", "k2"),
            fingerprint=b"other",
        )
    )
    assert codes(after) == ["done", "done"]
    assert balances(after)["balance"] == "11.00"
    assert balances(after)["pending_debit"] == "0.00"


def test_a_rolled_back_first_request_still_checks_the_version() -> None:
    wallet = make_wallet(balance=100)
    batch = make_batch(make_cache(wallet))
    rolled_back(batch.decide(request(debit("1"), credit("9"), atomic=True)))
    assert batch.write.expected_versions == {WALLET_ID: 5}
    assert batch.write.wallets == {WALLET_ID: wallet}
    assert batch.write.events == []


def test_an_accepted_atomic_request_stays() -> None:
    batch = make_batch(make_cache(make_wallet()))
    committed(batch.decide(request(debit("1"), credit("1"), atomic=True)))
    assert batch.write.wallets[WALLET_ID].version == 7


def test_a_batch_of_replayed_items_answers_with_a_wallet_at_a_version() -> None:
    # A stored response needs no version check; the current wallet state does: another
    # owner may have moved it on.
    earlier = changed(make_transfer(id=transfer_id(1)), make_wallet(version=6, pending_debit=100))
    batch = make_batch(
        make_cache(make_wallet()), created_transfers={(WALLET_ID, transfer_id(1)): earlier}
    )
    again = debit("1", status="pending", transfer_id=transfer_id(1))
    batch.decide(request(again, attempt=2, is_batch=True))
    assert batch.write.expected_versions == {WALLET_ID: 5}


def test_several_items_for_no_wallet_are_all_refused() -> None:
    reply = make_batch().decide(request(debit("1"), debit("2")))
    assert codes(reply) == ["wallet_not_found", "wallet_not_found"]
    assert committed(reply).wallet == b"null"


def test_a_transfer_delivered_twice_into_one_batch_is_applied_once() -> None:
    batch = make_batch(make_cache(make_wallet()))
    command = debit("1", transfer_id=transfer_id(1))
    first = batch.decide(request(command))
    again = batch.decide(request(command, attempt=2))
    assert again == first
    assert len(batch.write.events) == 1


def test_a_creation_delivered_twice_into_one_batch_makes_one_wallet() -> None:
    batch = make_batch()
    command = create_wallet(wallet_id(9), reference_id="r")
    first = batch.decide(request(command, wallet=wallet_id(9)))
    again = batch.decide(request(command, wallet=wallet_id(9), attempt=2))
    assert again == first
    assert batch.write.created_wallets == [wallet_id(9)]
