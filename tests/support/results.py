"""Accessors for write-side results; each asserts one kind of result."""

from typing import Any

import msgspec

from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    KeyClaimed,
    Refused,
    RequestResult,
)


def applied(result: RequestResult) -> Applied:
    assert isinstance(result, Applied), result
    return result


def refused(result: RequestResult) -> Refused:
    assert isinstance(result, Refused), result
    return result


def committed(result: RequestResult) -> BatchCommitted:
    assert isinstance(result, BatchCommitted), result
    return result


def rolled_back(result: RequestResult) -> BatchRolledBack:
    assert isinstance(result, BatchRolledBack), result
    return result


def claimed(result: RequestResult) -> KeyClaimed:
    assert isinstance(result, KeyClaimed), result
    return result


def failed(result: RequestResult) -> Failure:
    assert isinstance(result, Failure), result
    return result


def body(result: RequestResult) -> Any:
    """The result of one command as plain data: a wallet, a transfer or a refusal."""
    if isinstance(result, Refused):
        return msgspec.to_builtins(result.refusal)
    return msgspec.json.decode(applied(result).body)


def codes(result: RequestResult) -> list[str]:
    """``done`` or the refusal code, per item."""
    if isinstance(result, BatchRolledBack):
        return ["rolled back"] * result.index + [str(result.refusal.code)]
    items = result.items if isinstance(result, BatchCommitted) else (result,)
    return [str(one.refusal.code) if isinstance(one, Refused) else "done" for one in items]


def balances(result: RequestResult) -> Any:
    """The wallet after a batch."""
    return msgspec.json.decode(committed(result).wallet)
