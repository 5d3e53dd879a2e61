"""HTTP transport of the load client: requests, and the outcome that each response proves."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
import msgspec

from tests.support.load_client import (
    BATCH_REFUSED,
    CallTiming,
    RequestedOperation,
    attempt_at,
    version_in,
)
from verification.facts import ClientCall, Outcome

TIMEOUT_S: Final = 15.0
"""Longer than a request's default deadline, so that the service's own response comes first."""


class _Problem(msgspec.Struct):
    code: str
    detail: str = ""
    applied: str = ""


class _Item(msgspec.Struct):
    status: int
    transfer: msgspec.Raw = msgspec.Raw()
    problem: _Problem | None = None
    replayed: bool = False


class _Batch(msgspec.Struct):
    items: list[_Item]


def client_gave_up(timeout_s: float) -> str:
    """Code of an attempt that the client timed out before the service's deadline."""
    return f"gave up after {timeout_s:g} s"


class HttpTransport:
    """Implements `Transport`. ``timeout_s`` returns the client time-out of each request."""

    def __init__(
        self, http: httpx.AsyncClient, *, timeout_s: Callable[[], float] = lambda: TIMEOUT_S
    ) -> None:
        self._http = http
        self._timeout_s = timeout_s

    async def send(
        self, operations: Sequence[RequestedOperation], *, atomic: bool
    ) -> list[ClientCall]:
        path, body, headers = request_for(operations, atomic=atomic)
        timeout_s = self._timeout_s()
        started = time.monotonic_ns()
        response: httpx.Response | Exception
        try:
            method = "PATCH" if operations[0].operation == "update" else "POST"
            response = await self._http.request(
                method, path, json=body, headers=headers, timeout=timeout_s
            )
        except httpx.TransportError as failure:
            response = failure
        timing = CallTiming(started, time.monotonic_ns())
        attempts = attempts_from(operations, timing, response)
        if isinstance(response, httpx.ReadTimeout) and timeout_s < TIMEOUT_S:
            code = client_gave_up(timeout_s)
            attempts = [msgspec.structs.replace(one, code=code) for one in attempts]
        return attempts

    async def read(self, wallet_id: str, *, min_version: int, strong: bool) -> ClientCall | None:
        query: dict[str, Any] = {"consistency": "strong"} if strong else {}
        if min_version:
            query["min_version"] = min_version
        started = time.monotonic_ns()
        try:
            response = await self._http.get(
                f"/v1/wallet/{wallet_id}", params=query, timeout=TIMEOUT_S
            )
        except httpx.TransportError:
            return None
        if response.status_code != 200:
            return None
        return ClientCall(
            operation_id="",
            operation="read",
            wallet_id=wallet_id,
            started=started,
            ended=time.monotonic_ns(),
            outcome="acknowledged",
            status=200,
            body=response.text,
            version=version_in(response.content),
            min_version=min_version,
            strong=strong,
        )


# -- requests --------------------------------------------------------------------------------------


def request_for(
    operations: Sequence[RequestedOperation], *, atomic: bool
) -> tuple[str, Any, dict[str, str]]:
    """Path, body and headers."""
    first = operations[0]
    if len(operations) > 1:
        items = [_item(operation) for operation in operations]
        path = f"/v1/wallet/{first.wallet_id}/transfers/batch"
        return path, {"items": items, "atomic": atomic}, {}
    headers = {"Idempotency-Key": first.key} if first.key else {}
    reference = {"reference_id": first.intent}
    if first.operation == "create_wallet":
        return "/v1/wallet", reference, headers
    if first.operation == "update":
        patch = {
            "metadata": {"operation_id": first.intent},
            "overdraft_limit": _amount(first.amount),
        }
        return f"/v1/wallet/{first.wallet_id}", patch, headers
    if first.operation in ("freeze", "unfreeze", "close"):
        direction = {"direction": first.direction} if first.direction else {}
        path = f"/v1/wallet/{first.wallet_id}/{first.operation}"
        return path, direction | {"reason": first.intent}, headers
    base = f"/v1/wallet/{first.wallet_id}/transfers"
    if first.operation in ("complete", "revert"):
        path = f"{base}/{first.transfer_id}/{first.operation}"
        return path, reference | _part(first), headers
    if first.operation == "refund":
        return f"{base}/{first.transfer_id}/refund", _new_transfer(first) | reference, headers
    return f"{base}/{first.operation}", _new_transfer(first) | reference, headers


def _item(operation: RequestedOperation) -> dict[str, Any]:
    item: dict[str, Any] = {"reference_id": operation.intent}
    if operation.key:
        item["idempotency_key"] = operation.key
    if operation.operation in ("complete", "revert"):
        return item | {operation.operation: operation.transfer_id} | _part(operation)
    if operation.operation == "refund":
        return item | {"refund": operation.transfer_id} | _new_transfer(operation)
    return item | {"type": operation.operation} | _new_transfer(operation)


def _part(operation: RequestedOperation) -> dict[str, Any]:
    if not operation.amount:
        return {}
    return {"amount": _amount(operation.amount), "final": operation.final}


def _new_transfer(operation: RequestedOperation) -> dict[str, Any]:
    fields: dict[str, Any] = {"status": "pending" if operation.pending else "completed"}
    if operation.amount:  # Without one, a refund is of all that is left.
        fields["amount"] = _amount(operation.amount)
    if operation.expires_in_s:
        fields |= {"expires_in_s": operation.expires_in_s, "on_expiry": operation.on_expiry}
    return fields


def _amount(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02d}"


# -- responses -------------------------------------------------------------------------------------


def attempts_from(
    operations: Sequence[RequestedOperation],
    timing: CallTiming,
    response: httpx.Response | Exception,
) -> list[ClientCall]:
    """The recorded attempts, one per operation."""
    if isinstance(response, Exception):
        # A refused connection sent nothing. After any other error the server may have read it all.
        never_sent = isinstance(response, httpx.ConnectError | httpx.ConnectTimeout)
        outcome: Outcome = "not_applied" if never_sent else "unknown"
        code = type(response).__name__
        return [attempt_at(operation, timing, outcome, code=code) for operation in operations]
    if response.status_code == 200 and len(operations) > 1:
        items = msgspec.json.decode(response.content, type=_Batch).items
        replayed = "idempotency-replayed" in response.headers
        return [
            _from_item(operation, timing, item, replayed=replayed or item.replayed)
            for operation, item in zip(operations, items, strict=True)
        ]
    return [_from_response(operation, timing, response) for operation in operations]


def _from_item(
    operation: RequestedOperation, timing: CallTiming, item: _Item, *, replayed: bool
) -> ClientCall:
    if item.problem is not None:
        return _from_problem(operation, timing, item.status, item.problem, replayed=replayed)
    body = bytes(item.transfer)
    return attempt_at(
        operation,
        timing,
        "acknowledged",
        status=item.status,
        body=body.decode(),
        version=version_in(body),
        replayed=replayed,
    )


def _from_response(
    operation: RequestedOperation, timing: CallTiming, response: httpx.Response
) -> ClientCall:
    replayed = "idempotency-replayed" in response.headers
    if response.is_success:
        return attempt_at(
            operation,
            timing,
            "acknowledged",
            status=response.status_code,
            body=response.text,
            version=version_in(response.content),
            replayed=replayed,
        )
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.MsgspecError:
        # For example HAProxy's own error page, which does not say what the service did.
        status = response.status_code
        return attempt_at(operation, timing, "unknown", status=status, code="page")
    return _from_problem(operation, timing, response.status_code, problem, replayed=replayed)


def _from_problem(
    operation: RequestedOperation,
    timing: CallTiming,
    status: int,
    problem: _Problem,
    *,
    replayed: bool,
) -> ClientCall:
    return attempt_at(
        operation,
        timing,
        _outcome_of(status, problem),
        status=status,
        code=problem.code,
        # Not the whole document: it contains the request id, which differs.
        body=f"{problem.code}: {problem.detail}",
        replayed=replayed,
    )


def _outcome_of(status: int, problem: _Problem) -> Outcome:
    if status == 429 or problem.code == BATCH_REFUSED or problem.applied == "no":
        return "not_applied"
    return "unknown" if status >= 500 else "refused"
