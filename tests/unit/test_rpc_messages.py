"""The RPC messages: unknown fields are errors, and only the unreadable request fails."""

import hashlib
from typing import Any, get_args

import msgspec
import pytest

from actors.rpc.messages import (
    VERSION,
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    FailureCode,
    KeyClaimed,
    Refused,
    RequestResult,
    decode_replies,
    decode_submissions,
    encode_replies,
    encode_submissions,
    serve_call,
)
from tests.support.domain import WALLET_ID
from wallet.commands import (
    ClaimKey,
    CloseWallet,
    Command,
    CommandItem,
    CommandRequest,
    CreateTransfer,
    CreateWallet,
    ExpireTransfer,
    FreezeWallet,
    Idempotency,
    RefundTransfer,
    SettleTransfer,
    UnfreezeWallet,
    UpdateWallet,
)
from wallet.ids import IdempotencyKey, TransferId
from wallet.refusals import Refusal, RefusalCode

TRANSFER_ID = TransferId("0190a0f0-0000-7000-8000-000000000001")
FORMS = {
    2: "870124f0d60d8ca662b9f98ddf4834c44a295f3531292e4ed8438b83a89bd8e6",
    3: "b0f23835408228efbf599e667d317a8b338e79eea167cffdd6b51b183d918817",
    4: "ebac26919ed29926b467a37ffb8c25dddf4b6a0592abbba4d5bcbcc610826fb0",
    5: "9f00d240a7239236b738cc8f95ec8eb2947e59032e5352c5502cabe60601a6ce",
    6: "b4448516125ad3b6cf7bdb70b96a4529e1ce44d03993a74c7b141e937384ec08",
    7: "82fc3063e49e5ca0caf896cec178197cfed776318913186c687e61a40a17b9b3",
}
"""Digests of each version's types. If this test fails, raise VERSION."""


def done(name: str) -> Applied:
    return Applied(id=name, version=1, body=b"{}")


def make_request(request_id: str) -> CommandRequest:
    return CommandRequest(
        wallet_id=WALLET_ID,
        items=(
            CommandItem(command=CreateWallet(wallet_id=WALLET_ID, currency="USD", scale=2)),
            CommandItem(
                command=CreateTransfer(
                    transfer_id=TRANSFER_ID, type="debit", status="completed", amount="1"
                ),
                idempotency=Idempotency(key=IdempotencyKey("k"), fingerprint=b"f"),
            ),
            CommandItem(command=SettleTransfer(transfer_id=TRANSFER_ID, status="completed")),
            CommandItem(
                command=RefundTransfer(
                    transfer_id=TRANSFER_ID, refunds=TRANSFER_ID, status="completed"
                )
            ),
            CommandItem(command=ExpireTransfer(transfer_id=TRANSFER_ID)),
            CommandItem(command=ClaimKey()),
            CommandItem(command=UpdateWallet(metadata={"a": None}, if_match=(1,))),
            CommandItem(command=FreezeWallet(direction="both")),
            CommandItem(command=UnfreezeWallet()),
            CommandItem(command=CloseWallet()),
        ),
        request_id=request_id,
        timeout_s=1.0,
    )


def without_prose(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: without_prose(one) for name, one in schema.items() if name != "description"}
    return [without_prose(one) for one in schema] if isinstance(schema, list | tuple) else schema


def test_a_change_of_what_travels_is_another_version() -> None:
    schemas, components = msgspec.json.schema_components(
        (list[CommandRequest], list[RequestResult])
    )
    plain = msgspec.json.encode(without_prose([schemas, components]), order="sorted")
    form = hashlib.sha256(plain).hexdigest()

    assert FORMS.get(VERSION) == form, (
        "raise VERSION in actors/rpc/messages.py and add its form here"
    )


def every_result() -> list[RequestResult]:
    refusal = Refusal(code=RefusalCode.VALIDATION_ERROR, detail="d", pointer="/amount")
    declined = Refused(refusal=refusal, replayed=True)
    return [
        done("a"),
        declined,
        KeyClaimed(request_id="r"),
        BatchCommitted(items=(done("a"), declined), wallet=b"{}", replayed=True),
        BatchRolledBack(index=3, refusal=refusal),
        Failure(code=FailureCode.OVERLOADED, detail="d", applied="no", retry_after_s=2.0),
    ]


def test_every_kind_of_result_arrives_as_it_was_sent() -> None:
    results = every_result()
    kinds = {type(one) for one in results}
    assert kinds == set(get_args(RequestResult)), "a result type is missing in this test"
    assert decode_replies(encode_replies(results)) == results


def test_a_result_with_more_than_is_known_is_refused_whatever_its_kind() -> None:
    plain = msgspec.msgpack.decode(encode_replies(every_result()))
    for one in plain:
        one.append("added")
    spoilt = decode_replies(msgspec.msgpack.encode(plain))
    assert {type(one) for one in spoilt} == {Failure}
    assert all(isinstance(one, Failure) and one.applied == "unknown" for one in spoilt)


def test_a_refusal_with_more_than_is_known_is_refused() -> None:
    plain = msgspec.msgpack.decode(encode_replies(every_result()))
    refusals = [one for one in structs_in(plain) if "code" in one]
    assert len(refusals) == 3
    for one in refusals:
        one["added"] = 1
    spoilt = decode_replies(msgspec.msgpack.encode(plain))
    assert [type(one) for one in spoilt] == [Applied, Failure, KeyClaimed, *[Failure] * 3]
    assert [one.applied for one in spoilt if isinstance(one, Failure)] == [*["unknown"] * 3, "no"]


def structs_in(value: Any) -> list[dict[str, Any]]:
    """Every map in a decoded message, itself included."""
    if isinstance(value, dict):
        return [value, *(found for one in value.values() for found in structs_in(one))]
    return [found for one in value for found in structs_in(one)] if isinstance(value, list) else []


def test_a_field_that_is_not_known_is_refused_wherever_it_is() -> None:
    plain = msgspec.msgpack.decode(encode_submissions([make_request("a")]))
    maps = [one for one in structs_in(plain) if one]
    maps.remove({"a": None})
    assert len(maps) == 22  # the request, ten items and their commands, a key
    commands = {type(item.command) for item in make_request("a").items}
    assert commands == set(get_args(Command)), "a command type is missing in this test"
    for one in maps:
        one["added"] = 1
        with pytest.raises(msgspec.ValidationError):
            decode_submissions(msgspec.msgpack.encode(plain))
        del one["added"]
    assert decode_submissions(msgspec.msgpack.encode(plain)) == [make_request("a")]


async def test_a_request_that_cannot_be_read_fails_alone() -> None:
    taken: list[str] = []

    async def submit(requests: list[CommandRequest]) -> list[RequestResult]:
        taken.extend(one.request_id for one in requests)
        return [done(one.request_id) for one in requests]

    plain = msgspec.msgpack.decode(encode_submissions([make_request(name) for name in "abc"]))
    plain[1]["dry_run"] = True

    replies = decode_replies(await serve_call(msgspec.msgpack.encode(plain), submit))

    assert taken == ["a", "c"]
    assert (replies[0], replies[2]) == (done("a"), done("c"))
    failure = replies[1]
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.UNAVAILABLE
    assert failure.applied == "unknown"


async def test_nothing_is_submitted_of_a_call_that_cannot_be_read_at_all() -> None:
    async def submit(requests: list[CommandRequest]) -> list[RequestResult]:
        raise AssertionError(requests)

    (reply,) = decode_replies(await serve_call(msgspec.msgpack.encode([{"no": 1}]), submit))
    assert isinstance(reply, Failure)
    with pytest.raises(msgspec.DecodeError):
        await serve_call(b"\xc1", submit)


async def test_a_request_without_reply_is_a_bug_of_the_shard() -> None:
    async def submit(requests: list[CommandRequest]) -> list[RequestResult]:
        return [Applied(id="x", version=1, body=b"x") for _ in requests[1:]]

    with pytest.raises(AssertionError, match="INV-6"):
        await serve_call(encode_submissions([make_request("a"), make_request("b")]), submit)


def test_a_reply_that_cannot_be_read_fails_alone_and_promises_nothing() -> None:
    good = done("x")
    late = Failure(code=FailureCode.DEADLINE_EXCEEDED, detail="", applied="no")
    plain = msgspec.msgpack.decode(encode_replies([good, good, late]))
    plain[1].append("added")

    first, spoilt, last = decode_replies(msgspec.msgpack.encode(plain))

    assert (first, last) == (good, late)
    assert isinstance(spoilt, Failure)
    assert spoilt.applied == "unknown"
