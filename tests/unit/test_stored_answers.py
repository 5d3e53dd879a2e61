"""Stored responses stay readable: these rows have the format of earlier releases."""

import asyncio
from typing import TypeVar

import msgspec
import pytest

from actors.journal.ports import JournalError, StoredAnswer
from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    FailureCode,
    KeyClaimed,
    Refused,
)
from actors.shard.stored_answers import (
    batch_result_from,
    claim_from,
    item_result_from,
    request_fingerprint_from,
    stored_answer,
)
from tests.support.batches import keyed_batch, make_batch, make_cache
from tests.support.domain import WALLET_ID, make_wallet, transfer_id
from tests.support.faulty_journal import FaultyJournal
from tests.support.results import applied, failed
from tests.support.shards import shard_in_memory
from tests.support.write_side import credit, debit, idempotency_for
from wallet.commands import Idempotency
from wallet.ids import IdempotencyKey
from wallet.refusals import Refusal, RefusalCode

TRANSFER = (
    b'{"id":"01900000-0000-7000-9000-000000000001",'
    b'"wallet_id":"01900000-0000-7000-8000-000000000001","type":"debit","status":"completed",'
    b'"amount":"5.00","currency":"USD","reference_id":null,"metadata":{},"failure_reason":null,'
    b'"created_at":"2026-01-02T03:04:06Z","settled_at":"2026-01-02T03:04:06Z",'
    b'"wallet":{"version":6,"balance":"5.00","pending_credit":"0.00","pending_debit":"0.00"}}'
)
REFUSAL = (
    b'{"code":"insufficient_funds","detail":"A credit takes money out of the wallet: '
    b'9.00 USD was asked for, 5.00 is available.","pointer":null,"request_id":"r1"}'
)
BALANCES = b'{"version":6,"balance":"5.00","pending_credit":"0.00","pending_debit":"0.00"}'
CLAIM = b'{"request_id":"r4"}'
BATCH = (
    b'{"answers":[{"body":' + TRANSFER + b',"refused":false,"version":6},'
    b'{"body":'
    + REFUSAL
    + b',"refused":true,"version":0}],"wallet":'
    + BALANCES
    + b',"undone":false}'
)
ROLLED_BACK = (
    b'{"answers":[{"body":' + TRANSFER + b',"refused":false,"version":6},'
    b'{"body":' + REFUSAL + b',"refused":true,"version":0}],"wallet":null,"undone":true}'
)
PART = (
    b'{"request":"726571","answers":[{"body":' + TRANSFER + b',"refused":false,"version":6,'
    b'"replayed":true}],"wallet":' + BALANCES + b',"undone":false}'
)

DONE = Applied(id=transfer_id(1), version=6, body=TRANSFER)
DECLINED = Refused(
    refusal=Refusal(
        code=RefusalCode.INSUFFICIENT_FUNDS,
        detail="A credit takes money out of the wallet: 9.00 USD was asked for, 5.00 is available.",
        request_id="r1",
    )
)

ItemT = TypeVar("ItemT", Applied, Refused)


def make_row(answer: bytes, *, refused: bool = False, version: int = 0) -> StoredAnswer:
    return StoredAnswer(
        fingerprint=b"f", request_id="r1", refused=refused, answer=answer, version=version
    )


def replayed(result: ItemT) -> ItemT:
    return msgspec.structs.replace(result, replayed=True)


def test_a_transfer_that_was_kept_is_the_same_bytes_again_and_names_its_id() -> None:
    found = item_result_from(make_row(TRANSFER, version=6), replayed=True)
    assert found == replayed(DONE)


def test_a_refusal_that_was_kept_is_the_same_refusal_again() -> None:
    found = item_result_from(make_row(REFUSAL, refused=True), replayed=True)
    assert found == replayed(DECLINED)


def test_what_a_later_release_added_to_a_refusal_is_passed_over() -> None:
    longer = REFUSAL.replace(b'{"code"', b'{"added":1,"code"')
    assert item_result_from(make_row(longer, refused=True), replayed=True) == replayed(DECLINED)


def test_a_claim_that_was_kept_names_the_request_that_came_first() -> None:
    found = claim_from(make_row(CLAIM), replayed=True)
    assert found == KeyClaimed(request_id="r4", replayed=True)


def test_a_batch_that_was_kept_has_the_same_results_again() -> None:
    found = batch_result_from(make_row(BATCH), replayed=True)
    assert found == BatchCommitted(items=(DONE, DECLINED), wallet=BALANCES, replayed=True)
    assert request_fingerprint_from(make_row(BATCH)) == b""


def test_a_batch_that_was_rolled_back_names_its_refused_item_again() -> None:
    found = batch_result_from(make_row(ROLLED_BACK), replayed=True)
    assert found == BatchRolledBack(index=1, refusal=DECLINED.refusal, replayed=True)


def test_a_part_of_a_batch_names_its_request() -> None:
    found = batch_result_from(make_row(PART), replayed=False)
    assert found == BatchCommitted(items=(replayed(DONE),), wallet=BALANCES)
    assert request_fingerprint_from(make_row(PART)) == b"req"


@pytest.mark.parametrize(
    ("result", "request_fingerprint", "row"),
    [
        (DONE, b"", make_row(TRANSFER, version=6)),
        (DECLINED, b"", make_row(REFUSAL, refused=True)),
        (KeyClaimed(request_id="r4"), b"", make_row(CLAIM)),
        (BatchCommitted(items=(DONE, DECLINED), wallet=BALANCES), b"", make_row(BATCH)),
        (
            BatchCommitted(items=(replayed(DONE),), wallet=BALANCES),
            b"req",
            make_row(PART, version=6),
        ),
    ],
    ids=["transfer", "refusal", "claim", "batch", "part"],
)
def test_a_result_is_kept_in_the_form_that_earlier_releases_wrote(
    result: Applied | Refused | KeyClaimed | BatchCommitted,
    request_fingerprint: bytes,
    row: StoredAnswer,
) -> None:
    key = Idempotency(key=IdempotencyKey("k"), fingerprint=b"f", request=request_fingerprint)
    assert stored_answer(result, key, "r1") == row


def test_a_batch_that_is_rolled_back_is_kept_as_earlier_releases_read_it() -> None:
    """By its last response and the number of rolled-back responses before it."""
    key = Idempotency(key=IdempotencyKey("k"), fingerprint=b"f")
    kept = stored_answer(BatchRolledBack(index=1, refusal=DECLINED.refusal), key, "r1")
    assert kept.answer == ROLLED_BACK.replace(TRANSFER, b"null").replace(
        b'"version":6', b'"version":0'
    )
    assert not kept.refused


@pytest.mark.parametrize("row", [BATCH, ROLLED_BACK])
def test_a_stored_row_of_an_earlier_release_answers_a_repeated_batch(row: bytes) -> None:
    key = (WALLET_ID, IdempotencyKey("w"))
    batch = make_batch(make_cache(make_wallet()), keys={key: make_row(row)})
    found = batch.decide(keyed_batch(debit("5"), credit("9"), request_id="r2"))
    assert found == batch_result_from(make_row(row), replayed=True)
    assert batch.write.events == []


@pytest.mark.parametrize(
    "row",
    [
        make_row(b'{"code":"of_a_later_release","detail":""}', refused=True),
        make_row(b"{}", version=1),
        make_row(b"no JSON"),
    ],
    ids=["unknown_code", "no_id", "no_json"],
)
def test_a_row_that_cannot_be_read_is_an_error_of_the_journal(row: StoredAnswer) -> None:
    with pytest.raises(JournalError, match="can't be decoded"):
        item_result_from(row, replayed=True)
    with pytest.raises(JournalError, match="can't be decoded"):
        batch_result_from(row, replayed=True)


async def test_a_row_that_cannot_be_read_fails_its_own_request_and_no_other() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet, other = [await shard.create_wallet() for _ in range(2)]
        command = credit("1")
        fingerprint = idempotency_for("k", command).fingerprint
        unknown = make_row(b'{"code":"of_a_later_release","detail":""}', refused=True)
        journal.database.idempotency_keys[wallet, IdempotencyKey("k")] = msgspec.structs.replace(
            unknown, fingerprint=fingerprint
        )
        spoilt, *others = await asyncio.gather(
            shard.request(wallet, command, key="k"),
            shard.request(wallet, debit("1")),
            shard.request(other, debit("1")),
        )
        failure = failed(spoilt)
        assert (failure.code, failure.applied) == (FailureCode.UNAVAILABLE, "no")
        assert [applied(one).version for one in others] == [2, 2]
