"""What travels to a shard and back: nothing is passed over, and what can't be read fails alone."""

import hashlib
from typing import Any, get_args

import msgspec
import pytest

from actors.protocol import (
    VERSION,
    Answer,
    Failure,
    FailureCode,
    Reply,
    answer_call,
    decode_replies,
    decode_submissions,
    encode_replies,
    encode_submissions,
)
from tests.support.domain import WALLET_ID
from wallet.commands import (
    ClaimKey,
    Command,
    CreateTransfer,
    CreateWallet,
    Item,
    Keyed,
    SettleTransfer,
    Submission,
)
from wallet.ids import IdempotencyKey, TransferId

TRANSFER_ID = TransferId("0190a0f0-0000-7000-8000-000000000001")
FORMS = {2: "870124f0d60d8ca662b9f98ddf4834c44a295f3531292e4ed8438b83a89bd8e6"}
"""What each version's types look like, as a digest. When this test fails raise VERSION."""


def submission(request_id: str) -> Submission:
    return Submission(
        wallet_id=WALLET_ID,
        items=(
            Item(command=CreateWallet(new_wallet_id=WALLET_ID, currency="USD", scale=2)),
            Item(
                command=CreateTransfer(
                    transfer_id=TRANSFER_ID, type="debit", status="completed", amount="1"
                ),
                keyed=Keyed(key=IdempotencyKey("k"), fingerprint=b"f"),
            ),
            Item(command=SettleTransfer(transfer_id=TRANSFER_ID, status="completed")),
            Item(command=ClaimKey()),
        ),
        request_id=request_id,
        timeout_s=1.0,
    )


def without_prose(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: without_prose(one) for name, one in schema.items() if name != "description"}
    return [without_prose(one) for one in schema] if isinstance(schema, list | tuple) else schema


def test_a_change_of_what_travels_is_another_version() -> None:
    schemas, components = msgspec.json.schema_components((list[Submission], list[Reply]))
    plain = msgspec.json.encode(without_prose([schemas, components]), order="sorted")
    form = hashlib.sha256(plain).hexdigest()

    assert FORMS.get(VERSION) == form, "raise VERSION in actors/protocol.py and add its form here"


def structs_in(value: Any) -> list[dict[str, Any]]:
    """Every map in a decoded message, itself included."""
    if isinstance(value, dict):
        return [value, *(found for one in value.values() for found in structs_in(one))]
    return [found for one in value for found in structs_in(one)] if isinstance(value, list) else []


def test_a_field_that_is_not_known_is_refused_wherever_it_is() -> None:
    plain = msgspec.msgpack.decode(encode_submissions([submission("a")]))
    maps = [one for one in structs_in(plain) if one]
    assert len(maps) == 10  # the submission, four items and their commands, a key
    commands = {type(item.command) for item in submission("a").items}
    assert commands == set(get_args(Command)), "a kind of command is missing in this test"
    for one in maps:
        one["added"] = 1
        with pytest.raises(msgspec.ValidationError):
            decode_submissions(msgspec.msgpack.encode(plain))
        del one["added"]
    assert decode_submissions(msgspec.msgpack.encode(plain)) == [submission("a")]


async def test_a_submission_that_cannot_be_read_fails_alone() -> None:
    taken: list[str] = []

    async def submit(submissions: list[Submission]) -> list[Reply]:
        taken.extend(one.request_id for one in submissions)
        return [Reply(answers=(Answer(body=one.request_id.encode()),)) for one in submissions]

    plain = msgspec.msgpack.decode(encode_submissions([submission(name) for name in "abc"]))
    plain[1]["dry_run"] = True

    replies = decode_replies(await answer_call(msgspec.msgpack.encode(plain), submit))

    assert taken == ["a", "c"]
    assert [one.answers[0].body for one in (replies[0], replies[2])] == [b"a", b"c"]
    failure = replies[1].failure
    assert failure is not None
    assert failure.code is FailureCode.UNAVAILABLE
    assert failure.applied == "unknown"


async def test_nothing_is_submitted_of_a_call_that_cannot_be_read_at_all() -> None:
    async def submit(submissions: list[Submission]) -> list[Reply]:
        raise AssertionError(submissions)

    (reply,) = decode_replies(await answer_call(msgspec.msgpack.encode([{"no": 1}]), submit))
    assert reply.failure is not None
    with pytest.raises(msgspec.DecodeError):
        await answer_call(b"\xc1", submit)


async def test_a_submission_without_reply_is_a_bug_of_the_shard() -> None:
    async def submit(submissions: list[Submission]) -> list[Reply]:
        return [Reply(answers=(Answer(body=b"x"),)) for _ in submissions[1:]]

    with pytest.raises(AssertionError, match="INV-6"):
        await answer_call(encode_submissions([submission("a"), submission("b")]), submit)


def test_a_reply_that_cannot_be_read_fails_alone_and_promises_nothing() -> None:
    good = Reply(answers=(Answer(body=b"x"),))
    late = Reply(failure=Failure(code=FailureCode.DEADLINE_EXCEEDED, detail="", applied="no"))
    plain = msgspec.msgpack.decode(encode_replies([good, good, late]))
    plain[1].append("added")

    first, spoilt, last = decode_replies(msgspec.msgpack.encode(plain))

    assert (first, last) == (good, late)
    assert spoilt.failure is not None
    assert spoilt.failure.applied == "unknown"
