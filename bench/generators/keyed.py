"""Keyed transfers at a fixed rate, each repeated until it succeeds.

An open loop: request n is due at start + n / rate, and its time counts from then, retries included.
A connection that ends takes no request with it: it is sent again under its key. In a thread of its
own with raised priority where that is allowed, since clients are on other machines.
"""

import asyncio
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import uuid4

from bench.generators.connection import Connection
from bench.generators.requests import address_of
from deploy.local.background_thread import BackgroundThread
from tests.support.steady_load import RequestOutcome

_CONNECTIONS: Final = 32
_PRIORITY: Final = -10
_TICK_S: Final = 0.001
_RETRY_S: Final = 0.05
_FINISH_S_MAX: Final = 60.0
_BODY: Final = b'{"amount":"1.00","status":"completed"}'


class _Request:
    """One transfer of 1.00 into a wallet."""

    def __init__(self, wallet_id: str, due_s: float) -> None:
        self.wallet_id = wallet_id
        self.due_s = due_s
        self.failures: list[str] = []
        self.message = (
            f"POST /v1/wallet/{wallet_id}/transfers/debit HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {uuid4()}\r\n"
            f"Content-Length: {len(_BODY)}\r\n\r\n"
        ).encode() + _BODY


class KeyedLoad:
    """Debits of 1.00 into ``wallets`` in turn, at ``rate`` requests/s."""

    def __init__(self, url: str, wallets: Sequence[str], rate: float) -> None:
        self.outcomes: list[RequestOutcome] = []
        """Requests that succeeded, in the order of their responses."""
        self.acknowledged: Counter[str] = Counter()
        """Successes per wallet."""
        self.longest_lag_s = 0.0
        """How late this generator itself sent a request, at most."""
        self._address = address_of(url)
        self._wallets = wallets
        self._rate = rate
        self._free: deque[Connection] = deque()
        self._sent: dict[Connection, _Request] = {}
        self._waiting: deque[_Request] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._left = 0
        self._stopping = threading.Event()
        self._running: BackgroundThread[None] | None = None

    def start(self) -> None:
        self._running = BackgroundThread(self._thread)

    def stop(self) -> None:
        """Send no more, and return once everything has succeeded.

        Raises:
            AssertionError: something has not succeeded after 60 s.
        """
        self._stopping.set()
        if self._running is not None:
            self._running.result()

    def _thread(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PRIORITY)
        asyncio.run(self._run())

    async def _run(self) -> None:
        await asyncio.gather(*(self._connect() for _ in range(_CONNECTIONS)))
        due_s, number = time.monotonic(), 0
        while not self._stopping.is_set():
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(max(wait_s, _TICK_S))
                continue
            self.longest_lag_s = max(self.longest_lag_s, -wait_s)
            self._left += 1
            self._waiting.append(_Request(self._wallets[number % len(self._wallets)], due_s))
            self._send_waiting()
            number += 1
            due_s += 1 / self._rate
        deadline = time.monotonic() + _FINISH_S_MAX
        while self._left:
            assert time.monotonic() < deadline, f"{self._left} requests without success"
            await asyncio.sleep(_RETRY_S)
        await self._disconnect()

    async def _disconnect(self) -> None:
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in list(self._free):
            connection.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self), *self._address
                )
            except OSError:
                await asyncio.sleep(_RETRY_S)
            else:
                self._free.append(connection)
                self._send_waiting()
                return

    def _send_waiting(self) -> None:
        while self._waiting and self._free:
            # The one that has been idle longest, so that none is idle for so long that it ends.
            connection, request = self._free.popleft(), self._waiting.popleft()
            self._sent[connection] = request
            connection.send(request.message, request.due_s)

    # -- called by the connections -----------------------------------------------------------

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        del body
        request = self._sent.pop(connection, None)
        if request is None:  # The end of an idle connection is announced with a 408.
            return
        if not connection.is_closing:
            self._free.append(connection)
        if status == 201:
            self._succeeded(request)
        else:
            self._failed(request, str(status))
        self._send_waiting()

    def lost(self, connection: Connection, *, in_flight: bool) -> None:
        del in_flight
        with suppress(ValueError):
            self._free.remove(connection)
        if (request := self._sent.pop(connection, None)) is not None:
            self._failed(request, "connection lost")
        if self._left or not self._stopping.is_set():
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _succeeded(self, request: _Request) -> None:
        self._left -= 1
        self.acknowledged[request.wallet_id] += 1
        self.outcomes.append(
            RequestOutcome(
                due_s=request.due_s,
                took_s=time.monotonic() - request.due_s,
                failures=tuple(request.failures),
                wallet_id=request.wallet_id,
            )
        )

    def _failed(self, request: _Request, why: str) -> None:
        request.failures.append(why)
        asyncio.get_running_loop().call_later(_RETRY_S, self._again, request)

    def _again(self, request: _Request) -> None:
        self._waiting.append(request)
        self._send_waiting()
