"""What all reads have in common: their query, how fresh they must be, headers, what is missing."""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from serve_app.dependencies import dependencies_of
from serve_app.http import field_errors
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.request_rules import query_of
from serve_app.http.responses import PreparedResponse
from wallet.api_limits import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, VERSION_MAX
from wallet.ids import WalletId
from wallet.representation import ENCODER, WalletView

QueryT = TypeVar("QueryT", bound=BaseModel)


def _plain_digits(sent: object) -> object:
    """Reject ``+10``, ``1_0`` and ``10.0``, which pydantic accepts."""
    if isinstance(sent, str) and not (sent.isascii() and sent.isdecimal()):
        raise ValueError("send a whole number in plain digits")
    return sent


WholeNumber = Annotated[int, BeforeValidator(_plain_digits)]
PageLimit = Annotated[WholeNumber, Field(ge=1, le=PAGE_LIMIT_MAX)]


class FreshQuery(BaseModel):
    """Required freshness of a read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_version: Annotated[WholeNumber, Field(ge=0, le=VERSION_MAX)] = 0
    consistency: Literal["eventual", "strong"] = "eventual"

    @property
    def is_strong(self) -> bool:
        return self.consistency == "strong"


class PageQuery(FreshQuery):
    """A page of a list."""

    limit: PageLimit = PAGE_LIMIT_DEFAULT


def parsed_query(adapter: TypeAdapter[QueryT], request: Request) -> QueryT:
    """The request's query.

    Raises:
        Problem: validation_error, with each parameter that is wrong.
    """
    try:
        return adapter.validate_python(query_of(request))
    except ValidationError as error:
        found = map(field_errors.from_query, error.errors(include_url=False, include_context=False))
        raise validation_problem(
            *(FieldError(pointer=pointer, detail=detail) for pointer, detail in found)
        ) from None


def require_version(version: int, query: FreshQuery) -> None:
    """Require that a wallet at ``version`` has reached the query's ``min_version``.

    Raises:
        Problem: version_not_reached.
    """
    if version < query.min_version:
        raise ProblemError(
            "version_not_reached",
            f"The wallet is at version {version}, min_version is {query.min_version}.",
        )


NO_WALLET: Final = ("wallet_not_found", "There is no wallet with this id.")
NO_TRANSFER: Final = ("transfer_not_found", "This wallet has no transfer with this id.")

NO_CACHE: Final = (b"cache-control", b"no-cache")
"""Caches must revalidate: balances change."""

_FORKED: Final = (b"wallet-history", b"forked")
"""The database has lost some of the wallet's latest events, and recovery is still to come."""


async def read_headers(request: Request, wallet_id: WalletId) -> list[tuple[bytes, bytes]]:
    """Headers of every response about a wallet."""
    forked = await dependencies_of(request).queries.is_forked(wallet_id)
    return [NO_CACHE, _FORKED] if forked else [NO_CACHE]


async def not_found(request: Request, wallet_id: WalletId, what: tuple[str, str]) -> ProblemError:
    """``what`` is missing, or lost: then nobody knows yet whether it exists."""
    if await dependencies_of(request).queries.is_forked(wallet_id, strong=True):
        return ProblemError(
            "history_forked",
            "The database has lost some of this wallet's latest writes, and this may be one of "
            "them. The operator decides what becomes of them.",
        )
    return ProblemError(*what)


def _matches(if_none_match: str, etag: str) -> bool:
    candidates = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in candidates or etag in candidates


def sent_etags(request: Request) -> str:
    """All ``If-None-Match`` headers."""
    return ",".join(request.headers.getlist("if-none-match"))


async def wallet_response(request: Request, wallet: WalletView) -> Response:
    """``wallet`` with its ETag; 304 if the client has it already."""
    etag = f'"{wallet.version}"'
    headers = [(b"etag", etag.encode()), *await read_headers(request, wallet.id)]
    if _matches(sent_etags(request), etag):
        return PreparedResponse(b"", 304, headers)
    return json_response(ENCODER.encode(wallet), *headers)


def json_response(body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    length = (b"content-length", str(len(body)).encode())
    return PreparedResponse(body, 200, [(b"content-type", b"application/json"), length, *headers])
