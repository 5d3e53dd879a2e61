"""The generator in Python: open loops at moderate rates, and closed loops without wrk.

An open loop sends request n at start + n / rate, whatever the responses are. Its latency counts
from that intended moment: a request that had to wait because the service (or a full set of
connections) was slow has waited, and a stall is seen by every request that fell into it. No
coordinated omission.

It is a process of its own (`python -m bench.generators.python`, the load as JSON on stdin) and
reports the CPU it used: it runs on the cores of what it measures.
"""

import asyncio
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from bench.generators.connection import Connection
from bench.generators.latency import Latencies
from bench.generators.load_spec import LoadSpec
from bench.generators.request_script import ResponseMode
from bench.generators.requests import RequestSource, address_of
from bench.generators.result import GRACE_S, LoadResult

_clock = time.perf_counter

_TICK_S: Final = 0.001

_PROBLEM: Final = re.compile(rb'"problem":\{"type":"/problems/(\w+)"')
"""Of a refused item; its code."""


class Generator:
    """One load. ``on_answer`` gets each response (setup reads ids from them)."""

    def __init__(
        self,
        load: LoadSpec,
        source: RequestSource,
        *,
        requests_max: int | None = None,
        on_answer: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._load = load
        self._source = source
        self._left = requests_max
        self._on_answer = on_answer
        self._connections: set[Connection] = set()
        self._free: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._statuses: Counter[int] = Counter()
        self._items: Counter[str] = Counter()
        self._refused_items: Counter[str] = Counter()
        """By the problem's code."""
        self._latencies = Latencies()
        self._in_flight = 0
        self._socket_errors = 0
        self._lag_s = 0.0
        self._began = self._ended = 0.0
        self._stopped = self._closing = False
        self._idle = asyncio.Event()

    async def run(self) -> LoadResult:
        """Send until the time (or ``requests_max``) is over, then wait for the responses."""
        await self._connect()
        cpu_s = time.process_time()
        self._began = _clock()
        deadline = self._began + self._load.duration_s
        if self._load.rate is None:
            await self._closed_loop()
        else:
            await self._open_loop(self._load.rate, deadline)
        self._stopped = True
        await self._wait_for_answers()
        cpu_s = time.process_time() - cpu_s
        self._closing = True
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        return self._result(cpu_s)

    async def _connect(self) -> None:
        host, port = address_of(self._load.url)
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), host, port)
            self._connections.add(connection)
            self._free.append(connection)

    async def _closed_loop(self) -> None:
        while self._free and self._may_send():
            self._send(self._free.popleft(), _clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._load.duration_s):
                await self._idle.wait()  # only if the requests or the connections run out

    async def _open_loop(self, rate: float, deadline: float) -> None:
        interval, due = 1 / rate, self._began
        while due < deadline:
            wait_s = due - _clock()
            if wait_s > 0:
                # The event loop's timers count milliseconds: less would be a busy wait, and take
                # half a core from what is measured. Lateness counts as latency.
                await asyncio.sleep(max(wait_s, _TICK_S))
            now = _clock()
            self._lag_s = max(self._lag_s, now - due)
            while due <= now and due < deadline:
                if self._free:
                    self._send(self._free.popleft(), due)
                else:
                    self._due.append(due)
                due += interval

    async def _wait_for_answers(self) -> None:
        if self._in_flight == 0 and not self._due:
            return
        self._idle.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._idle.wait()

    def _may_send(self) -> bool:
        if self._stopped or self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        return True

    def _send(self, connection: Connection, intended: float) -> None:
        self._in_flight += 1
        connection.send(self._source.next(), intended)

    # -- called by the connections -----------------------------------------------------------

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        self._ended = _clock()
        self._in_flight -= 1
        self._latencies.add(self._ended - connection.intended)
        self._statuses[status] += 1
        self._source.note(status, body)
        if self._load.mode is ResponseMode.ITEMS and status == 200:
            self._items["accepted"] += body.count(b'{"status":20')
            self._refused_items.update(map(bytes.decode, _PROBLEM.findall(body)))
        if self._on_answer is not None:
            self._on_answer(status, body)
        self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        if connection.is_closing:
            if self._in_flight == 0:
                self._idle.set()
        elif self._due:
            self._send(connection, self._due.popleft())
        elif self._load.rate is None and self._may_send():
            self._send(connection, _clock())
        else:
            self._free.append(connection)
            if self._in_flight == 0:
                self._idle.set()

    def lost(self, connection: Connection, *, in_flight: bool) -> None:
        self._connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        self._socket_errors += not self._closing
        self._in_flight -= in_flight
        if not self._connections:
            self._idle.set()

    def _result(self, cpu_s: float) -> LoadResult:
        load = self._load
        since_epoch = time.time() - _clock()
        return LoadResult(
            generator="python",
            connections=load.connections,
            rate=load.rate,
            began_at=self._began + since_epoch,
            ended_at=max(self._ended, self._began) + since_epoch,
            statuses={str(status): count for status, count in self._statuses.items()},
            items_accepted=self._items["accepted"],
            items_refused=self._refused_items.total(),
            refused_items=dict(self._refused_items),
            socket_errors=self._socket_errors,
            unanswered=self._in_flight + len(self._due),
            latency=self._latencies.summary(),
            generator_cpu_s=cpu_s,
            generator_lag_ms=None if load.rate is None else self._lag_s * 1000,
        )


def main() -> None:
    """Run the load on stdin, report on stdout."""
    import uvloop

    from bench.generators.request_script import read_templates

    load = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadSpec)
    source = RequestSource(
        read_templates(Path(load.script_file)),
        url=load.url,
        headers=load.headers,
        mode=load.mode,
        key_prefix=load.key_prefix,
    )

    async def run() -> LoadResult:
        return await Generator(load, source).run()

    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run())))


if __name__ == "__main__":
    main()
