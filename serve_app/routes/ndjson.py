"""NDJSON: one item per line in, one result per line out, full duplex, any number of lines.

If the client …

- sends a line that is too long: the line is discarded, and its result is a 413.
- reads slowly: results are buffered up to a limit, then reading from the client pauses.
- does not read until it has sent everything: both sides would block forever. After a timeout the
  stream ends, with a problem as the last line. Further input is read for a limited time and
  discarded, because such a client reads only after sending.
- never reads: the remaining results are discarded.
- disconnects: executed items stay applied, and no more are executed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.auth.authenticated_request import continue_stream
from serve_app.http import batch_requests
from serve_app.http.batch_requests import WalletBatchItem
from serve_app.http.batch_responses import failed_result, result_lines
from serve_app.http.ids import new_request_id
from serve_app.http.models import BatchResult
from serve_app.http.problems import ProblemError
from serve_app.routes.multi_wallet_batch import BatchContext, Undecided, by_wallet, submit_by_wallet
from wallet import commands

_log = structlog.get_logger(__name__)

NDJSON: Final = "application/x-ndjson"

UNDECIDED_MAX: Final = 10_000
"""Wallets without a decision per stream; with more of them the stream ends."""

UNREAD_MAX: Final = 2**20
"""Buffered bytes of results; above it the stream stops reading from the client."""

UNREAD_WAIT_S: Final = 10.0
"""If the client then reads nothing for this long, the stream ends."""

GONE_S: Final = 60.0
"""How long a stream that ends early still reads and discards input. Also how long the client may
read nothing of the last results before the connection is closed."""

PIECE_MAX: Final = 2**16
"""Bytes per send; after each one it is known that the client still reads."""


def ndjson_response(call: BatchContext, request: Request) -> StreamingResponse:
    """The streaming response to an NDJSON request."""
    chunks = request.stream()
    return _DuplexStreamingResponse(
        _results(call, request, chunks),
        chunks,
        result_of=lambda problem: result_lines([failed_result(problem, call.request_id)]),
    )


# -- lines in ------------------------------------------------------------------------------------


class LineReader:
    """Splits chunks into lines. None is a line that is too long."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._pieces: list[bytes] = []
        """Parts of the incomplete line; empty if it is too long."""
        self._size = 0

    @property
    def kept_bytes(self) -> int:
        return sum(map(len, self._pieces))

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that ``chunk`` completes, without empty ones."""
        first, *others = chunk.split(b"\n")
        self._add(first)
        if not others:
            return []
        lines = [self._line()]
        *others, rest = others
        lines += [line if len(line) <= self._line_bytes_max else None for line in others]
        self._add(rest)
        return [line for line in lines if line is None or line.strip()]

    def end(self) -> list[bytes | None]:
        """The last line, if it isn't empty."""
        line = self._line()
        return [line] if line is None or line.strip() else []

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._line_bytes_max:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def _line(self) -> bytes | None:
        line = b"".join(self._pieces) if self._size <= self._line_bytes_max else None
        self._pieces.clear()
        self._size = 0
        return line


async def read_lines(
    chunks: AsyncIterator[bytes], *, line_bytes_max: int, portion_max: int
) -> AsyncIterator[list[bytes | None]]:
    """The body's lines as they arrive, at most ``portion_max`` at a time, without empty ones.

    None is a line of more than ``line_bytes_max`` bytes.
    """
    reader = LineReader(line_bytes_max)
    async for chunk in chunks:
        lines = reader.feed(chunk)
        for start in range(0, len(lines), portion_max):
            yield lines[start : start + portion_max]
    if last := reader.end():
        yield last


# -- results out ---------------------------------------------------------------------------------


async def _results(
    call: BatchContext, request: Request, chunks: AsyncIterator[bytes]
) -> AsyncGenerator[bytes]:
    """The results of one portion at a time, one per line.

    The next portion is read after the current one is decided: backpressure to the client.

    Raises:
        Problem: the stream ends; no later line is executed.
        ClientDisconnect: the client disconnected.
    """
    settings = call.services.settings
    undecided: Undecided = {}
    portions = read_lines(
        chunks, line_bytes_max=settings.body_bytes_max, portion_max=settings.batch_items_max
    )
    async for lines in portions:
        await continue_stream(request, len(lines), wait_max_s=call.timeout_s)
        results = await _submit_lines(call, lines, undecided)
        yield result_lines(results)
        if len(undecided) > UNDECIDED_MAX:
            raise ProblemError("unavailable", _TOO_MANY_UNDECIDED, applied="no")


async def _submit_lines(
    call: BatchContext, lines: Sequence[bytes | None], undecided: Undecided
) -> list[BatchResult]:
    results: dict[int, BatchResult] = {}
    asked: list[WalletBatchItem] = []
    items: list[commands.CommandItem] = []
    positions: list[int] = []
    for index, line in enumerate(lines):
        try:
            item = _decoded(line, call.services.settings.body_bytes_max)
            items.extend(batch_requests.to_commands([item], [""]))
        except ProblemError as problem:
            results[index] = failed_result(problem, call.request_id)
            continue
        asked.append(item)
        positions.append(index)
    # Each portion is a separate delivery and needs a request id of its own.
    portion = replace(call, request_id=f"{call.request_id}/{new_request_id()}")
    done = await submit_by_wallet(portion, by_wallet(asked), items, undecided=undecided)
    results.update(zip(positions, done.results, strict=True))
    return [results[index] for index in range(len(lines))]


def _decoded(line: bytes | None, line_bytes_max: int) -> WalletBatchItem:
    if line is None:
        raise ProblemError("body_too_large", f"Send at most {line_bytes_max} bytes a line.")
    return batch_requests.decode(batch_requests.ndjson_item, line)


class _NotRead(Exception):
    """The client doesn't read the results."""


class _Unread:
    """Buffered results for a client that may read late."""

    def __init__(self, read_timeout: asyncio.Timeout) -> None:
        self._read_timeout = read_timeout
        """After the last result: limits the time in which the client reads nothing."""
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._was_read = asyncio.Event()
        self._is_complete = False

    def add(self, answers: bytes) -> None:
        for start in range(0, len(answers), PIECE_MAX):
            self._pieces.append(answers[start : start + PIECE_MAX])
        self._size += len(answers)
        self._changed.set()

    def complete(self, _: object = None) -> None:
        """No more results follow."""
        self._is_complete = True
        self._extend_timeout()
        self._changed.set()

    def _extend_timeout(self) -> None:
        self._read_timeout.reschedule(asyncio.get_running_loop().time() + GONE_S)

    async def wait_for_capacity(self) -> None:
        """Wait until the buffer is below its limit.

        Raises:
            _NotRead: the client read nothing for too long.
        """
        while self._size > UNREAD_MAX:
            self._was_read.clear()
            try:
                async with asyncio.timeout(UNREAD_WAIT_S):
                    await self._was_read.wait()
            except TimeoutError:
                raise _NotRead from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The buffered pieces until completion. A request for the next means the last was sent."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                yield piece
                self._size -= len(piece)
                self._was_read.set()
                if self._is_complete:
                    self._extend_timeout()
            if self._is_complete:
                return
            self._changed.clear()
            await self._changed.wait()


class _DuplexStreamingResponse(StreamingResponse):
    """Sends results while the request body is still being read.

    Starlette's class listens for a disconnect, which would consume the body.
    """

    def __init__(
        self,
        results: AsyncGenerator[bytes],
        chunks: AsyncIterator[bytes],
        *,
        result_of: Callable[[ProblemError], bytes],
    ) -> None:
        super().__init__(results, media_type=NDJSON)
        self._results = results
        self._chunks = chunks
        self._result_of = result_of

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(None) as read_timeout:
                await self._answer(_Unread(read_timeout), send)
        except TimeoutError:
            _log.warning("stream responses not read")

    async def _answer(self, unread: _Unread, send: Send) -> None:
        executing = asyncio.create_task(self._execute(unread))
        executing.add_done_callback(unread.complete)
        try:
            await self._send(unread, send)
            # On an error the connection breaks, so a complete response has all results.
            await executing
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            executing.remove_done_callback(unread.complete)
            executing.cancel()

    async def _send(self, unread: _Unread, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for piece in unread.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _execute(self, unread: _Unread) -> None:
        try:
            async for results in self._results:
                unread.add(results)
                await unread.wait_for_capacity()
        except _NotRead:
            await self._end_early(unread, ProblemError("answers_not_read", _UNREAD, applied="no"))
        except ProblemError as problem:
            await self._end_early(unread, problem)
        except ClientDisconnect:
            pass  # Executed items stay applied; nobody reads their results.
        finally:
            await self._results.aclose()

    async def _end_early(self, unread: _Unread, problem: ProblemError) -> None:
        """Send the problem, then discard further input: the client may read only after sending.

        For at most ``GONE_S``: a client that sends slowly must not keep the connection open.
        """
        unread.add(self._result_of(problem))
        try:
            async with asyncio.timeout(GONE_S):
                while True:
                    async with asyncio.timeout(UNREAD_WAIT_S):
                        await anext(self._chunks)
        except (StopAsyncIteration, TimeoutError, ClientDisconnect):
            return


_TOO_MANY_UNDECIDED: Final = (
    f"The stream ends here: more than {UNDECIDED_MAX:,} wallets got no decision. No later line was "
    "executed."
)
_UNREAD: Final = (
    f"The stream ends here: more than {UNREAD_MAX // 2**20} MiB of results were buffered, and none "
    f"was read for {UNREAD_WAIT_S:.0f} s. No later line was executed. Read results while sending, "
    "or send less."
)
