"""Account statements, streamed: as JSON or as CSV, in constant memory.

What a client can rely on:

- A statement is one history: its versions are fixed when it begins.
- If anything goes wrong on the way, the connection breaks before the end of the body. A complete
  JSON document ends with the closing balance, a complete CSV file with the row ``closing``.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import structlog
from pydantic import Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from projections.statements import StatementBounds
from serve_app.auth.authenticated_request import continue_stream
from serve_app.dependencies import dependencies_of
from serve_app.http import statement_csv
from serve_app.http.accept import preferred
from serve_app.http.problems import FieldError, ProblemError, validation_problem
from serve_app.http.requests import request_id_of, wallet_id_of
from serve_app.http.responses import PreparedResponse
from serve_app.http.times import Time
from serve_app.routes.read_requests import (
    NO_WALLET,
    FreshQuery,
    not_found,
    parsed_query,
    read_headers,
    require_version,
)
from wallet.ids import WalletId
from wallet.representation import ENCODER
from wallet.statement import StatementCheck, StatementEntry

_log = structlog.get_logger(__name__)

JSON: Final = "application/json"
CSV: Final = "text/csv"

UNREAD_S: Final = 60.0
"""How long a client may read nothing, and how long a statement waits for its key's rate limit."""

Headers = list[tuple[bytes, bytes]]


class StatementQuery(FreshQuery):
    """Which time a statement is about; the first is inclusive, the second not."""

    since: Time | None = Field(default=None, alias="from")
    until: Time | None = Field(default=None, alias="to")


_query: Final = TypeAdapter(StatementQuery)

_running: Final[set[object]] = set()
"""Statements that this process streams."""


async def get_statement(request: Request) -> Response:
    """A wallet's statement, as JSON or as CSV."""
    wallet_id = wallet_id_of(request)
    query = parsed_query(_query, request)
    if query.since is not None and query.until is not None and query.since > query.until:
        raise validation_problem(FieldError(pointer="#query/to", detail="send a time after from"))
    media_type = preferred(request.headers.get("accept", ""), (JSON, CSV))
    if media_type is None:
        raise ProblemError("not_acceptable", f"A statement is {JSON} or {CSV}.")
    bounds = await dependencies_of(request).queries.statements.bounds(
        wallet_id, since=query.since, until=query.until
    )
    if bounds is None:
        raise await not_found(request, wallet_id, NO_WALLET)
    require_version(bounds.wallet_version, query)
    headers = await _headers(request, wallet_id, media_type)
    if request.method == "HEAD":
        return PreparedResponse(b"", 200, headers)
    form = _CsvForm(bounds, query) if media_type == CSV else _JsonForm(wallet_id, bounds, query)
    return await _streamed(request, _pieces(request, wallet_id, bounds, form), headers)


async def _headers(request: Request, wallet_id: WalletId, media_type: str) -> Headers:
    headers = [(b"vary", b"Accept"), *await read_headers(request, wallet_id)]
    if media_type == JSON:
        return [(b"content-type", JSON.encode()), *headers]
    name = f'attachment; filename="statement-{wallet_id}.csv"'
    content_type = b"text/csv; charset=utf-8; header=present"
    return [(b"content-type", content_type), (b"content-disposition", name.encode()), *headers]


class _JsonForm:
    """`wallet.statement.StatementView`, in pieces."""

    def __init__(self, wallet_id: WalletId, bounds: StatementBounds, query: StatementQuery) -> None:
        self._about: dict[str, Any] = {
            "wallet_id": wallet_id,
            "currency": bounds.currency,
            "from": query.since,
            "to": query.until,
        }
        self._bounds = bounds
        self._has_entries = False

    def opening(self) -> bytes:
        about = self._about | {"opening": self._bounds.opening.view(self._bounds.scale)}
        return ENCODER.encode(about)[:-1] + b',"entries":['

    def entries(self, entries: list[StatementEntry]) -> bytes:
        if not entries:
            return b""
        separator = b"," if self._has_entries else b""
        self._has_entries = True
        return separator + ENCODER.encode(entries)[1:-1]

    def closing(self, entry_count: int) -> bytes:
        closing = self._bounds.closing.view(self._bounds.scale)
        return b"]," + ENCODER.encode({"entry_count": entry_count, "closing": closing})[1:]


class _CsvForm:
    """`serve_app.http.statement_csv`."""

    def __init__(self, bounds: StatementBounds, query: StatementQuery) -> None:
        self._bounds = bounds
        self._times: tuple[datetime | None, datetime | None] = query.since, query.until

    def opening(self) -> bytes:
        balances = self._bounds.opening.view(self._bounds.scale)
        return statement_csv.opening_rows(balances, self._times[0], self._bounds.currency)

    def entries(self, entries: list[StatementEntry]) -> bytes:
        return statement_csv.entry_rows(entries, self._bounds.currency)

    def closing(self, entry_count: int) -> bytes:  # noqa: ARG002 - the row itself says enough
        balances = self._bounds.closing.view(self._bounds.scale)
        return statement_csv.closing_row(balances, self._times[1], self._bounds.currency)


async def _pieces(
    request: Request, wallet_id: WalletId, bounds: StatementBounds, form: _JsonForm | _CsvForm
) -> AsyncIterator[bytes]:
    """The body, a page of the journal at a time.

    Raises:
        BrokenStatement, ReadUnavailable: it can't be completed.
        Problem: the key is no longer valid, or its rate limit is exceeded for too long.
    """
    check = StatementCheck(bounds.opening, bounds.closing, scale=bounds.scale)
    piece = form.opening()
    async for lines in dependencies_of(request).queries.statements.pages(wallet_id, bounds):
        yield piece + form.entries(check.entries(lines))
        piece = b""
        await continue_stream(request, 1, wait_max_s=UNREAD_S)
    check.end()
    yield piece + form.closing(check.entry_count)


async def _streamed(request: Request, pieces: AsyncIterator[bytes], headers: Headers) -> Response:
    """The response. Its first piece is there, so most failures are still problems."""
    if len(_running) >= dependencies_of(request).settings.statements_max:
        raise ProblemError(
            "overloaded",
            "This replica streams as many statements as it may.",
            headers={"Retry-After": "1"},
        )
    place = object()
    _running.add(place)
    try:
        first = await anext(aiter(pieces))
    except BaseException:
        _running.discard(place)
        raise
    return _StatementResponse(_all(request, first, pieces), headers, place)


async def _all(
    request: Request, first: bytes, others: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    try:
        yield first
        async for piece in others:
            yield piece
    except Exception as error:
        _log.warning(
            "statement broken off",
            cause=f"{type(error).__name__}: {error}",
            request_id=request_id_of(request),
        )
        raise


class _StatementResponse(StreamingResponse):
    """Ends without the end of the body if a piece fails or the client reads nothing."""

    def __init__(self, pieces: AsyncIterator[bytes], headers: Headers, place: object) -> None:
        super().__init__(pieces)
        self.raw_headers = headers
        self._place = place

    async def __call__(self, *connection: Any) -> None:
        try:
            await super().__call__(*connection)
        finally:
            _running.discard(self._place)

    async def stream_response(self, send: Send) -> None:
        async def timed(message: Message) -> None:
            async with asyncio.timeout(UNREAD_S):
                await send(message)

        await super().stream_response(timed)
