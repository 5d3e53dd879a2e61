"""Routes that control a wallet: its metadata, its overdraft limit, freezing and closing."""

from starlette.requests import Request
from starlette.responses import Response

from serve_app.auth.authenticated_request import require_scope
from serve_app.dependencies import dependencies_of
from serve_app.http import models
from serve_app.http.fingerprints import fingerprint
from serve_app.http.parts import own_key
from serve_app.http.requests import (
    MERGE_PATCH,
    idempotency_key_of,
    if_match_of,
    parse_body,
    read_body,
    wallet_id_of,
)
from serve_app.http.responses import item_response
from serve_app.routes.writes import submit
from wallet import commands


async def update_wallet(request: Request) -> Response:
    """Change a wallet's metadata or overdraft limit."""
    raw = await _body(request, other_type=MERGE_PATCH)
    body = parse_body(models.UpdateWalletBody, raw)
    limit = None
    if "overdraft_limit" in body.model_fields_set:
        require_scope(request, "admin")
        limit = str(body.overdraft_limit or "0")
    command = commands.UpdateWallet(
        metadata=body.metadata or {},
        replace_metadata=body.metadata is None,
        overdraft_limit=limit,
        if_match=if_match_of(request),
    )
    return await _control(request, command)


async def freeze_wallet(request: Request) -> Response:
    """Stop a wallet's transfers in one direction, or in both."""
    body = parse_body(models.FreezeBody, await _body(request))
    command = commands.FreezeWallet(
        direction=body.direction, reason=body.reason, if_match=if_match_of(request)
    )
    return await _control(request, command)


async def unfreeze_wallet(request: Request) -> Response:
    """Let a frozen wallet's transfers go on."""
    body = parse_body(models.ControlBody, await _body(request))
    command = commands.UnfreezeWallet(reason=body.reason, if_match=if_match_of(request))
    return await _control(request, command)


async def close_wallet(request: Request) -> Response:
    """Close an empty wallet for ever."""
    body = parse_body(models.ControlBody, await _body(request))
    command = commands.CloseWallet(reason=body.reason, if_match=if_match_of(request))
    return await _control(request, command)


async def _body(request: Request, **accepted: str) -> bytes:
    return await read_body(request, dependencies_of(request).settings.body_bytes_max, **accepted)


async def _control(request: Request, command: commands.ControlWallet) -> Response:
    # A second delivery after somebody else's change would undo that change. Under a key it is
    # recognised, so there is always one.
    key = idempotency_key_of(request) or own_key()
    idempotency = commands.Idempotency(key=key, fingerprint=fingerprint(command))
    wallet_id = wallet_id_of(request)
    result = await submit(dependencies_of(request), request, wallet_id, command, idempotency)
    return item_response(result, 200, etag=True)
