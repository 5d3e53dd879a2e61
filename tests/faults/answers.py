"""From an HTTP answer, or none, to what a careful client then knows."""

from collections.abc import Sequence

import httpx
import msgspec

from tests.simulation.requests import Wish
from verification.evidence import Attempt, Outcome


class _Problem(msgspec.Struct):
    code: str
    detail: str = ""
    applied: str = ""


class _Sums(msgspec.Struct):
    version: int = 0


class _Told(msgspec.Struct):
    """The version that an answer tells: a wallet's own, or that of the transfer's wallet."""

    version: int = 0
    wallet: _Sums | None = None


class _Item(msgspec.Struct):
    status: int
    transfer: msgspec.Raw = msgspec.Raw()
    problem: _Problem | None = None
    replayed: bool = False


class _Batch(msgspec.Struct):
    items: list[_Item]


class Clocked(msgspec.Struct, frozen=True):
    """When a call began and ended, on one monotonic clock (ns)."""

    started: int
    ended: int


def read_attempt(
    name: str, wallet_id: str, clocked: Clocked, answer: httpx.Response, **asked: int | bool
) -> Attempt | None:
    """A read that was answered with a wallet; None if it wasn't."""
    if answer.status_code != 200:
        return None
    return Attempt(
        intent=name,
        operation="read",
        wallet_id=wallet_id,
        started=clocked.started,
        ended=clocked.ended,
        outcome="acknowledged",
        status=200,
        body=answer.text,
        version=_version_in(answer.content),
        **asked,  # type: ignore[arg-type]  # fields of an attempt
    )


def attempts_of(
    wishes: Sequence[Wish], clocked: Clocked, answer: httpx.Response | Exception
) -> list[Attempt]:
    """What the client writes down, a wish each."""
    if isinstance(answer, Exception):
        # A refused connection carried nothing; of any other the server may have read it all.
        never_sent = isinstance(answer, httpx.ConnectError | httpx.ConnectTimeout)
        outcome: Outcome = "not_applied" if never_sent else "unknown"
        code = type(answer).__name__
        return [_attempt(wish, clocked, outcome, code=code) for wish in wishes]
    if answer.status_code == 200 and len(wishes) > 1:
        items = msgspec.json.decode(answer.content, type=_Batch).items
        whole = "idempotency-replayed" in answer.headers
        return [
            _of_item(wish, clocked, item, replayed=whole or item.replayed)
            for wish, item in zip(wishes, items, strict=True)
        ]
    return [_of_answer(wish, clocked, answer) for wish in wishes]


def _of_item(wish: Wish, clocked: Clocked, item: _Item, *, replayed: bool) -> Attempt:
    if item.problem is not None:
        return _of_problem(wish, clocked, item.status, item.problem, replayed=replayed)
    body = bytes(item.transfer)
    return _attempt(
        wish,
        clocked,
        "acknowledged",
        status=item.status,
        body=body.decode(),
        version=_version_in(body),
        replayed=replayed,
    )


def _of_answer(wish: Wish, clocked: Clocked, answer: httpx.Response) -> Attempt:
    replayed = "idempotency-replayed" in answer.headers
    if answer.is_success:
        return _attempt(
            wish,
            clocked,
            "acknowledged",
            status=answer.status_code,
            body=answer.text,
            version=_version_in(answer.content),
            replayed=replayed,
        )
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.MsgspecError:
        # HAProxy's own page, say: it doesn't know what the service did.
        return _attempt(
            wish, clocked, "unknown", status=answer.status_code, code=f"{answer.status_code} page"
        )
    return _of_problem(wish, clocked, answer.status_code, problem, replayed=replayed)


def _of_problem(
    wish: Wish, clocked: Clocked, status: int, problem: _Problem, *, replayed: bool
) -> Attempt:
    return _attempt(
        wish,
        clocked,
        _outcome_of(status, problem),
        status=status,
        code=problem.code,
        # Not the whole document: the request's own id is in it.
        body=f"{problem.code}: {problem.detail}",
        replayed=replayed,
    )


def _outcome_of(status: int, problem: _Problem) -> Outcome:
    if status == 429 or problem.code == "batch_refused" or problem.applied == "no":
        return "not_applied"
    return "unknown" if status >= 500 else "refused"


def _version_in(body: bytes) -> int:
    told = msgspec.json.decode(body, type=_Told)
    return told.wallet.version if told.wallet else told.version


def _attempt(
    wish: Wish,
    clocked: Clocked,
    outcome: Outcome,
    *,
    code: str = "",
    status: int = 0,
    body: str = "",
    replayed: bool = False,
    version: int = 0,
) -> Attempt:
    return Attempt(
        intent=wish.intent,
        operation=wish.operation,
        wallet_id=wish.wallet_id,
        transfer_id=wish.transfer_id,
        amount=wish.amount,
        pending=wish.pending,
        key=wish.key,
        started=clocked.started,
        ended=clocked.ended,
        outcome=outcome,
        code=code,
        status=status,
        body=body,
        replayed=replayed,
        version=version,
    )
