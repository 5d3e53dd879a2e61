"""Looking back: a wallet as it was at a version, or at a time."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from projections.wallet_history import PastWallet
from serve_app.dependencies import dependencies_of
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.times import Time
from serve_app.routes.read_requests import (
    NO_WALLET,
    FreshQuery,
    WholeNumber,
    not_found,
    require_version,
    wallet_response,
)
from wallet.api_limits import VERSION_MAX
from wallet.ids import WalletId


class WalletQuery(FreshQuery):
    """Which state of a wallet; as it is now, if neither is sent."""

    version: Annotated[WholeNumber, Field(ge=1, le=VERSION_MAX)] | None = None
    at: Time | None = None

    @property
    def is_past(self) -> bool:
        return self.version is not None or self.at is not None


async def past_wallet(request: Request, wallet_id: WalletId, query: WalletQuery) -> Response:
    """The wallet as it was."""
    found = await _past_wallet(request, wallet_id, query)
    if found is None:
        raise await not_found(request, wallet_id, NO_WALLET)
    require_version(found.wallet_version, query)
    if found.wallet is None:
        raise _not_yet(found, query)
    return await wallet_response(request, found.wallet)


async def _past_wallet(
    request: Request, wallet_id: WalletId, query: WalletQuery
) -> PastWallet | None:
    history = dependencies_of(request).queries.history
    if query.at is None:
        assert query.version is not None, "one of them was sent"
        return await history.at_version(wallet_id, query.version)
    if query.version is not None:
        raise validation_problem(
            FieldError(pointer="#query/at", detail="send either version or at, not both")
        )
    return await history.at_time(wallet_id, query.at)


def _not_yet(found: PastWallet, query: WalletQuery) -> ProblemError:
    if query.version is None:
        return ProblemError(
            "wallet_not_found",
            f"The wallet did not exist then: it was created at {found.created_at.isoformat()}.",
        )
    return ProblemError(
        "version_not_reached",
        f"The wallet is at version {found.wallet_version}, not yet at {query.version}.",
    )
