"""Idempotency keys in a batch: stored, replayed, refused; per item and for the whole batch."""

from typing import Any

import msgspec
import pytest

from actors.journal.ports import ReadSet, StoredAnswer
from actors.rpc.messages import BatchCommitted, Refused
from actors.shard.required_reads import required_reads
from tests.support.batches import keyed_batch, make_batch, make_cache, request
from tests.support.domain import (
    OTHER_WALLET_ID,
    WALLET_ID,
    make_wallet,
    wallet_id,
)
from tests.support.results import applied, balances, codes, committed, refused, rolled_back
from tests.support.write_side import create_wallet, creation_scope_of, credit, debit
from wallet.commands import ClaimKey, CommandRequest, Idempotency
from wallet.ids import IdempotencyKey, batch_scope

# -- keys --------------------------------------------------------------------------------------


def test_a_key_is_stored_with_its_answer_and_replayed_in_the_same_batch() -> None:
    batch = make_batch(make_cache(make_wallet()))
    first = applied(batch.decide(request(debit("1"), keys=("k",), request_id="r1")))
    again = batch.decide(request(debit("1"), keys=("k",), request_id="r2"))
    assert again == msgspec.structs.replace(first, replayed=True)
    assert first.version == 6
    assert (len(batch.write.events), batch.replays) == (1, 1)
    assert batch.write.stored_answers == {
        (WALLET_ID, "k"): StoredAnswer(
            fingerprint=b"f", request_id="r1", refused=False, answer=first.body, version=6
        )
    }


def test_our_own_second_delivery_is_no_replay_to_the_client() -> None:
    batch = make_batch(make_cache(make_wallet()))
    first = batch.decide(request(debit("1"), keys=("k",), request_id="r1"))
    again = batch.decide(request(debit("1"), keys=("k",), request_id="r1", attempt=2))
    assert again == first


@pytest.mark.parametrize("same_batch", [True, False])
def test_a_key_with_another_request_is_refused_and_changes_nothing(same_batch: bool) -> None:
    stored = StoredAnswer(fingerprint=b"f", request_id="r0", refused=False, answer=b"{}", version=3)
    loaded = {} if same_batch else {"keys": {(WALLET_ID, "k"): stored}}
    batch = make_batch(make_cache(make_wallet()), **loaded)
    if same_batch:
        batch.decide(request(debit("1"), keys=("k",)))
    before = msgspec.msgpack.encode(batch.write)
    reply = batch.decide(request(debit("2"), keys=("k",), fingerprint=b"other"))
    assert codes(reply) == ["idempotency_key_reused"]
    assert msgspec.msgpack.encode(batch.write) == before


def test_a_key_belongs_to_one_wallet() -> None:
    batch = make_batch(make_cache(make_wallet(), make_wallet(id=OTHER_WALLET_ID)))
    batch.decide(request(debit("1"), keys=("k",)))
    other = batch.decide(
        request(debit("2"), wallet=OTHER_WALLET_ID, keys=("k",), fingerprint=b"other")
    )
    assert codes(other) == ["done"]
    assert len(batch.write.stored_answers) == 2


def test_a_declined_payment_is_remembered_under_its_key() -> None:
    batch = make_batch(make_cache(make_wallet()))
    declined = refused(batch.decide(request(credit("1"), keys=("k",))))
    batch.decide(request(debit("9")))
    late = batch.decide(request(credit("1"), keys=("k",), request_id="r2"))
    assert late == Refused(refusal=declined.refusal, replayed=True)
    (stored,) = batch.write.stored_answers.values()
    assert stored.refused


def test_a_request_that_is_not_valid_does_not_use_up_its_key() -> None:
    batch = make_batch(make_cache(make_wallet()))
    assert codes(batch.decide(request(debit("0.001"), keys=("k",)))) == ["validation_error"]
    assert batch.write.stored_answers == {}
    right = request(debit("0.01"), keys=("k",), fingerprint=b"other")
    assert codes(batch.decide(right)) == ["done"]


def test_a_keyed_creation_repeated_in_one_batch_makes_one_wallet() -> None:
    scope = creation_scope_of("k")
    batch = make_batch()
    first, again = [
        batch.decide(
            request(create_wallet(wallet_id(n)), wallet=scope, keys=("k",), request_id=f"r{n}")
        )
        for n in (7, 8)
    ]
    assert applied(first).id == wallet_id(7)
    assert again == msgspec.structs.replace(applied(first), replayed=True)
    assert batch.write.created_wallets == [wallet_id(7)]


# -- a key for the whole -----------------------------------------------------------------------


def test_a_keyed_batch_is_replayed_as_a_whole() -> None:
    batch = make_batch(make_cache(make_wallet()))
    first = committed(batch.decide(keyed_batch(debit("5"), credit("9"), request_id="r1")))
    write = msgspec.msgpack.encode(batch.write)
    again = batch.decide(keyed_batch(debit("5"), credit("9"), request_id="r2"))
    assert codes(first) == ["done", "insufficient_funds"]
    assert not first.replayed
    assert again == msgspec.structs.replace(first, replayed=True)
    assert msgspec.msgpack.encode(batch.write) == write
    assert list(batch.write.stored_answers) == [(WALLET_ID, "w")]


def test_a_keyed_batch_refused_once_is_refused_when_it_could_succeed() -> None:
    batch = make_batch(make_cache(make_wallet()))
    first = rolled_back(batch.decide(keyed_batch(debit("1"), credit("9"), atomic=True)))
    batch.decide(request(debit("100")))
    again = batch.decide(keyed_batch(debit("1"), credit("9"), atomic=True, request_id="r2"))
    assert codes(first) == ["rolled back", "insufficient_funds"]
    assert again == msgspec.structs.replace(first, replayed=True)
    assert batch.write.wallets[WALLET_ID].version == 6


def test_a_batch_s_key_with_another_batch_is_refused_and_changes_nothing() -> None:
    batch = make_batch(make_cache(make_wallet()))
    batch.decide(keyed_batch(debit("1"), debit("2")))
    write = msgspec.msgpack.encode(batch.write)
    reply = batch.decide(keyed_batch(debit("1"), debit("3"), fingerprint=b"other"))
    assert codes(reply) == ["idempotency_key_reused"]
    assert msgspec.msgpack.encode(batch.write) == write


def test_a_batch_for_no_wallet_does_not_use_up_its_key() -> None:
    batch = make_batch()
    assert codes(batch.decide(keyed_batch(debit("1"), debit("2")))) == ["wallet_not_found"] * 2
    assert batch.write.stored_answers == {}


def test_a_batch_of_one_item_is_answered_as_a_batch() -> None:
    batch = make_batch(make_cache(make_wallet()))
    reply = batch.decide(keyed_batch(debit("1")))
    assert balances(reply)["version"] == 6


def test_keys_of_a_batch_and_of_its_items_are_read() -> None:
    cache = make_cache(make_wallet())
    asked = [keyed_batch(debit("1"), debit("2"), keys=("k1", "k2"))]
    missing = required_reads(asked, cache, maybe_applied=False)
    assert missing == ReadSet(keys={(WALLET_ID, IdempotencyKey(key)) for key in ("w", "k1", "k2")})


def test_a_batch_undone_by_an_invalid_item_does_not_use_up_its_key() -> None:
    batch = make_batch(make_cache(make_wallet()))
    reply = batch.decide(keyed_batch(debit("1"), debit("0.001"), atomic=True))
    assert codes(reply) == ["rolled back", "validation_error"]
    assert batch.write.stored_answers == {}


@pytest.mark.parametrize(
    ("kept", "sent", "is_replay"),
    [
        (b"request", b"request", True),
        (b"request", b"another", False),
        (b"request", b"f", False),
        (b"", b"request", True),  # stored by a release without records of whole requests
        (b"request", b"", True),  # sent by that release, while both run
    ],
)
def test_a_part_s_key_belongs_to_the_request_that_it_was_part_of(
    kept: bytes, sent: bytes, is_replay: bool
) -> None:
    batch = make_batch(make_cache(make_wallet()))
    first = batch.decide(part_of(kept, debit("1"), debit("2")))
    again = batch.decide(part_of(sent, debit("1"), debit("2"), request_id="r2"))
    assert isinstance(again, BatchCommitted) is is_replay
    assert codes(again) == (codes(first) if is_replay else ["idempotency_key_reused"])
    assert len(batch.write.events) == 2


def test_a_part_is_kept_whatever_it_came_to() -> None:
    # Its key belongs to the whole batch and can't be used for anything else.
    batch = make_batch()
    first = committed(batch.decide(part_of(b"request", debit("1"), request_id="r1")))
    again = batch.decide(part_of(b"request", debit("1"), request_id="r2"))
    assert codes(first) == ["wallet_not_found"]
    assert again == msgspec.structs.replace(first, replayed=True)


def test_a_claim_reads_its_key_and_no_wallet() -> None:
    scope = batch_scope(IdempotencyKey("k"))
    missing = required_reads(
        [request(ClaimKey(), wallet=scope, keys=("k",))], make_cache(), maybe_applied=True
    )
    assert missing == ReadSet(keys={(scope, IdempotencyKey("k"))})


def part_of(request: bytes, *commands: Any, **fields: Any) -> CommandRequest:
    keyed = Idempotency(key=IdempotencyKey("w"), fingerprint=b"f", request=request)
    return keyed_batch(*commands, idempotency=keyed, **fields)
