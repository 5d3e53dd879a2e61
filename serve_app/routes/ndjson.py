"""NDJSON: a line an item in, a line a result out, both at once and of any number.

What if the client …

- sends a line that is too long: nothing of it is kept, and a 413 takes its place.
- reads slowly: its answers gather up to a bound, then nothing more is read from it.
- does not read at all until it has sent everything: then neither side would ever move again.
  After a while the stream ends, with a line that says so. What the client still sends is taken
  for a bounded time and thrown away, because it reads only after that.
- never reads: what is left of its answers is given up.
- is gone: what was executed is applied, and nothing more is.
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
"""Wallets without a decision that a stream remembers; with more of them it ends."""

UNREAD_MAX: Final = 2**20
"""Bytes of answers that may wait for the client before the stream stops reading from it."""

UNREAD_WAIT_S: Final = 10.0
"""For so long it may then take none of them before the stream ends."""

GONE_S: Final = 60.0
"""For so long at most a stream that ends early takes what the client still sends. After its end it
is given up if the client takes none of its last answers for so long."""

PIECE_MAX: Final = 2**16
"""Bytes that are sent at once: whether a client reads is seen from piece to piece."""


def ndjson_response(call: BatchContext, request: Request) -> StreamingResponse:
    """The answers to a stream of items, as it comes."""
    chunks = request.stream()
    return _DuplexStreamingResponse(
        _results(call, request, chunks),
        chunks,
        result_of=lambda problem: result_lines([failed_result(problem, call.request_id)]),
    )


# -- lines in ------------------------------------------------------------------------------------


class LineReader:
    """Lines from chunks that end anywhere. None stands for a line that is too long."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._pieces: list[bytes] = []
        """Of the line that has not ended yet; none if it is too long."""
        self._size = 0

    @property
    def kept_bytes(self) -> int:
        return sum(map(len, self._pieces))

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that ``chunk`` ends; empty ones are left out."""
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
    """The body's lines as they come, in portions of at most ``portion_max``; empty ones left out.

    None stands for a line of more than ``line_bytes_max`` bytes.
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
    """A portion's results at a time, each as a line.

    One portion is under way at a time, and the next is not read before it is decided: a slow
    database slows the sender down.

    Raises:
        Problem: no later line is executed.
        ClientDisconnect: the client is gone.
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
    places: list[int] = []
    for index, line in enumerate(lines):
        try:
            item = _decoded(line, call.services.settings.body_bytes_max)
            items.extend(batch_requests.to_commands([item], [""]))
        except ProblemError as problem:
            results[index] = failed_result(problem, call.request_id)
            continue
        asked.append(item)
        places.append(index)
    # Each portion is a delivery of its own: its request id must not look like an earlier one's.
    portion = replace(call, request_id=f"{call.request_id}/{new_request_id()}")
    done = await submit_by_wallet(portion, by_wallet(asked), items, undecided=undecided)
    results.update(zip(places, done.results, strict=True))
    return [results[index] for index in range(len(lines))]


def _decoded(line: bytes | None, line_bytes_max: int) -> WalletBatchItem:
    if line is None:
        raise ProblemError("body_too_large", f"Send at most {line_bytes_max} bytes a line.")
    return batch_requests.decode(batch_requests.ndjson_item, line)


class _NotRead(Exception):
    """The client takes none of its answers."""


class _Unread:
    """Answers on their way to a client that may read late."""

    def __init__(self, patience: asyncio.Timeout) -> None:
        self._patience = patience
        """How much longer the client may take nothing, once all is said."""
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_complete = False

    def add(self, answers: bytes) -> None:
        for start in range(0, len(answers), PIECE_MAX):
            self._pieces.append(answers[start : start + PIECE_MAX])
        self._size += len(answers)
        self._changed.set()

    def complete(self, _: object = None) -> None:
        """Nothing more is added."""
        self._is_complete = True
        self._wait_longer()
        self._changed.set()

    def _wait_longer(self) -> None:
        self._patience.reschedule(asyncio.get_running_loop().time() + GONE_S)

    async def room(self) -> None:
        """Return when there is room for more.

        Raises:
            _NotRead: the client took nothing for too long.
        """
        while self._size > UNREAD_MAX:
            self._taken.clear()
            try:
                async with asyncio.timeout(UNREAD_WAIT_S):
                    await self._taken.wait()
            except TimeoutError:
                raise _NotRead from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """What is added, until it is complete. Who asks for the next has read the last."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                yield piece
                self._size -= len(piece)
                self._taken.set()
                if self._is_complete:
                    self._wait_longer()
            if self._is_complete:
                return
            self._changed.clear()
            await self._changed.wait()


class _DuplexStreamingResponse(StreamingResponse):
    """Sends while the request still comes.

    The class it comes from may listen for the client's disconnection, and swallow the body so.
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
            async with asyncio.timeout(None) as patience:
                await self._answer(_Unread(patience), send)
        except TimeoutError:
            _log.warning("stream responses not read")

    async def _answer(self, unread: _Unread, send: Send) -> None:
        executing = asyncio.create_task(self._execute(unread))
        executing.add_done_callback(unread.complete)
        try:
            await self._send(unread, send)
            await executing  # A bug breaks the connection: an answer that ends well is whole.
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
                await unread.room()
        except _NotRead:
            await self._end_early(unread, ProblemError("answers_not_read", _UNREAD, applied="no"))
        except ProblemError as problem:
            await self._end_early(unread, problem)
        except ClientDisconnect:
            pass  # What came before is applied; nobody is there to read it.
        finally:
            await self._results.aclose()

    async def _end_early(self, unread: _Unread, problem: ProblemError) -> None:
        """Say why, and take what the client still sends: it may not read before it has sent it.

        For ``GONE_S`` at most: a client that sends a byte now and then would hold all of it.
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
    f"The stream ends here: more than {UNREAD_MAX // 2**20} MiB of answers waited, and none was "
    f"read for {UNREAD_WAIT_S:.0f} s. No later line was executed. Read answers while sending, or "
    "send less."
)
