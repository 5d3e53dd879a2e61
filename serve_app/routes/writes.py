"""Write routes: wallets, transfers, settlements."""

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from actors.rpc.messages import Applied, ItemResult
from runtime.settings import Settings
from serve_app.auth.authenticated_request import api_key_id_of, require_scope
from serve_app.dependencies import Dependencies, dependencies_of
from serve_app.http import models
from serve_app.http.expiry import ExpiryError, requested_expiry
from serve_app.http.fingerprints import fingerprint
from serve_app.http.ids import new_id
from serve_app.http.parts import AMOUNT_OF_A_PART, KEY_OF_A_PART, KEY_OF_A_REFUND, own_key
from serve_app.http.problems import FieldError, validation_problem
from serve_app.http.requests import (
    idempotency_key_of,
    parse_body,
    read_body,
    request_id_of,
    timeout_of,
    transfer_id_of,
    wallet_id_of,
)
from serve_app.http.responses import item_response, single_result
from wallet import commands
from wallet.currencies import CurrencyError, resolve_scale
from wallet.ids import IdempotencyKey, TransferId, WalletId, wallet_creation_scope


async def create_wallet(request: Request) -> Response:
    """Open an empty wallet."""
    services = dependencies_of(request)
    key = idempotency_key_of(request)
    raw = await read_body(request, services.settings.body_bytes_max)
    body = parse_body(models.CreateWalletBody, raw)
    if "overdraft_limit" in body.model_fields_set:
        require_scope(request, "admin")
    command = _wallet_command(body, services.settings)
    idempotency = None
    scope = command.wallet_id
    if key is not None:
        idempotency = commands.Idempotency(key=key, fingerprint=fingerprint(command))
        scope = wallet_creation_scope(key)
    result = await submit(services, request, scope, command, idempotency)
    # The id of the result, not of our command: a replay returns the first request's wallet.
    location = f"/v1/wallet/{result.id}" if isinstance(result, Applied) else None
    return item_response(result, 201, location=location)


def _wallet_command(body: models.CreateWalletBody, settings: Settings) -> commands.CreateWallet:
    currency = body.currency or settings.default_currency
    try:
        scale = resolve_scale(currency, body.scale)
    except CurrencyError as error:
        raise validation_problem(
            FieldError(pointer=f"/{error.field}", detail=str(error))
        ) from error
    return commands.CreateWallet(
        wallet_id=WalletId(new_id()),
        currency=currency,
        scale=scale,
        reference_id=body.reference_id,
        metadata=body.metadata,
        overdraft_limit=body.overdraft_limit,  # type: ignore[arg-type]  # canonical, as an amount
    )


async def _create_transfer_of(kind: Literal["debit", "credit"], request: Request) -> Response:
    services = dependencies_of(request)
    wallet_id = wallet_id_of(request)
    key = idempotency_key_of(request)
    raw = await read_body(request, services.settings.body_bytes_max)
    body = parse_body(models.CreateTransferBody, raw)
    command = commands.CreateTransfer(
        transfer_id=TransferId(new_id()),
        type=kind,
        status=body.status,
        amount=body.amount,  # type: ignore[arg-type]  # canonical: text, whatever was sent
        reference_id=body.reference_id,
        metadata=body.metadata,
        expiry=_expiry_of(body),
    )
    idempotency = key and commands.Idempotency(key=key, fingerprint=fingerprint(command))
    result = await submit(services, request, wallet_id, command, idempotency or None)
    return _created(wallet_id, result)


def _created(wallet_id: WalletId, result: ItemResult) -> Response:
    location = None
    if isinstance(result, Applied):
        location = f"/v1/wallet/{wallet_id}/transfers/{result.id}"
    return item_response(result, 201, location=location)


def _expiry_of(
    body: models.CreateTransferBody | models.RefundTransferBody,
) -> commands.RequestedExpiry | None:
    try:
        return requested_expiry(
            status=body.status,
            expires_at=body.expires_at,
            expires_in_s=body.expires_in_s,
            on_expiry=body.on_expiry,
        )
    except ExpiryError as error:
        raise validation_problem(
            FieldError(pointer=f"/{error.field}", detail=str(error))
        ) from error


def _completion(
    transfer_id: TransferId, body: models.CompleteTransferBody, key: IdempotencyKey | None
) -> commands.SettleTransfer:
    problem = None
    if not body.final and key is None:
        problem = FieldError(pointer="#header/Idempotency-Key", detail=KEY_OF_A_PART)
    if "final" in body.model_fields_set and "amount" not in body.model_fields_set:
        problem = FieldError(pointer="/amount", detail=AMOUNT_OF_A_PART)
    if problem is not None:
        raise validation_problem(problem)
    keyless = key is None and body.amount is None
    return commands.SettleTransfer(
        transfer_id=transfer_id,
        status="completed",
        amount=body.amount,  # type: ignore[arg-type]  # canonical: text, whatever was sent
        final=body.final,
        reference_id=body.reference_id,
        metadata=body.metadata,
        delivery_id=TransferId(new_id()) if keyless else None,
    )


def _reversal(transfer_id: TransferId, body: models.SettleTransferBody) -> commands.SettleTransfer:
    return commands.SettleTransfer(
        transfer_id=transfer_id,
        status="failed",
        reference_id=body.reference_id,
        metadata=body.metadata,
    )


async def _settle_transfer_as(status: Literal["completed", "failed"], request: Request) -> Response:
    services = dependencies_of(request)
    wallet_id, transfer_id = wallet_id_of(request), transfer_id_of(request)
    key = idempotency_key_of(request)
    raw = await read_body(request, services.settings.body_bytes_max)
    if status == "completed":
        body = parse_body(models.CompleteTransferBody, raw)
        command = _completion(transfer_id, body, key)
        if key is None and command.amount is not None:
            key = own_key()
    else:
        command = _reversal(transfer_id, parse_body(models.SettleTransferBody, raw))
    idempotency = key and commands.Idempotency(key=key, fingerprint=fingerprint(command))
    result = await submit(services, request, wallet_id, command, idempotency or None)
    return item_response(result, 200)


async def refund_transfer(request: Request) -> Response:
    """Refund: return what a transfer completed, by a new transfer the other way."""
    services = dependencies_of(request)
    wallet_id, refunds = wallet_id_of(request), transfer_id_of(request)
    key = idempotency_key_of(request)
    raw = await read_body(request, services.settings.body_bytes_max)
    body = parse_body(models.RefundTransferBody, raw)
    if key is None:
        raise validation_problem(
            FieldError(pointer="#header/Idempotency-Key", detail=KEY_OF_A_REFUND)
        )
    command = commands.RefundTransfer(
        transfer_id=TransferId(new_id()),
        refunds=refunds,
        status=body.status,
        amount=body.amount,  # type: ignore[arg-type]  # canonical: text, whatever was sent
        reference_id=body.reference_id,
        metadata=body.metadata,
        expiry=_expiry_of(body),
    )
    idempotency = commands.Idempotency(key=key, fingerprint=fingerprint(command))
    return _created(wallet_id, await submit(services, request, wallet_id, command, idempotency))


async def debit_wallet(request: Request) -> Response:
    """Debit: put money INTO the wallet."""
    return await _create_transfer_of("debit", request)


async def credit_wallet(request: Request) -> Response:
    """Credit: take money OUT of the wallet."""
    return await _create_transfer_of("credit", request)


async def complete_transfer(request: Request) -> Response:
    """Complete a pending transfer."""
    return await _settle_transfer_as("completed", request)


async def revert_transfer(request: Request) -> Response:
    """Revert a pending transfer: it fails, and the held amount is released."""
    return await _settle_transfer_as("failed", request)


async def submit(
    services: Dependencies,
    request: Request,
    scope: WalletId,
    command: commands.Command,
    idempotency: commands.Idempotency | None,
) -> ItemResult:
    """The result of one command.

    Raises:
        Problem: overloaded, unavailable or deadline_exceeded.
    """
    command_request = commands.CommandRequest(
        wallet_id=scope,
        items=(commands.CommandItem(command=command, idempotency=idempotency),),
        request_id=request_id_of(request),
        timeout_s=timeout_of(request, services.settings),
        api_key_id=api_key_id_of(request),
    )
    return single_result(await services.dispatcher.submit(command_request))
