"""OpenAPI specification of the routes that control a wallet."""

from typing import Final

from serve_app.http import models
from serve_app.http.requests import MERGE_PATCH
from serve_app.openapi import examples
from serve_app.openapi.route_spec import (
    IF_MATCH,
    WRITE_PROBLEMS,
    RequestBodySpec,
    ResponseSpec,
    RouteSpec,
)
from serve_app.routes import control
from wallet.representation import WalletChangedView

_CONTROL: Final = ("wallet_not_found", "precondition_failed", *WRITE_PROBLEMS)


def _changed(example: dict[str, object]) -> dict[int, ResponseSpec]:
    what = "The wallet after the change; as it is, if there was nothing to change."
    return {200: ResponseSpec(what=what, model=WalletChangedView, example=example)}


CONTROL_ROUTES: Final = (
    RouteSpec(
        method="PATCH",
        path="/v1/wallet/{wallet_id}",
        endpoint=control.update_wallet,
        tag="wallets",
        summary="Change a wallet's metadata or overdraft limit",
        description="A JSON merge patch (RFC 7396): members and entries that are missing stay as "
        "they are, null removes an entry. An overdraft_limit needs the scope `admin`, and is never "
        "lower than what is used. Currency, scale and reference_id never change.",
        answers=_changed(examples.UPDATED_WALLET),
        etag=True,
        problems=("wallet_closed", "overdraft_in_use", "metadata_full", *_CONTROL),
        parameters=(IF_MATCH,),
        body=RequestBodySpec(
            model=models.UpdateWalletBody,
            example={"metadata": {"channel": "app", "old": None}, "overdraft_limit": "100.00"},
            json_media=(MERGE_PATCH,),
        ),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/freeze",
        endpoint=control.freeze_wallet,
        tag="wallets",
        summary="Freeze a wallet in one direction, or in both",
        description="Transfers in a frozen direction are neither created nor completed; reverting "
        "always works. Freezing a frozen wallet changes its direction and reason.",
        answers=_changed(examples.FROZEN_WALLET),
        etag=True,
        problems=("wallet_closed", *_CONTROL),
        parameters=(IF_MATCH,),
        scope="admin",
        body=RequestBodySpec(
            model=models.FreezeBody,
            example={"direction": "credit", "reason": "card reported as stolen"},
        ),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/unfreeze",
        endpoint=control.unfreeze_wallet,
        tag="wallets",
        summary="Unfreeze a wallet",
        description="Its transfers go on. The response to a wallet that is not frozen is the "
        "wallet.",
        answers=_changed(examples.UPDATED_WALLET),
        etag=True,
        problems=("wallet_closed", *_CONTROL),
        parameters=(IF_MATCH,),
        scope="admin",
        body=RequestBodySpec(model=models.ControlBody, example={"reason": "new card issued"}),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/close",
        endpoint=control.close_wallet,
        tag="wallets",
        summary="Close a wallet for ever",
        description="Needs a balance of zero and nothing pending. A closed wallet can be read, and "
        "nothing changes it any more.",
        answers=_changed(examples.CLOSED_WALLET),
        etag=True,
        problems=("wallet_not_empty", *_CONTROL),
        parameters=(IF_MATCH,),
        scope="admin",
        body=RequestBodySpec(model=models.ControlBody, example={"reason": "contract ended"}),
    ),
)
