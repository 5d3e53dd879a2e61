"""Whether a backlog drains while the service is at full load: `python -m bench.outage`.

A stack of its own, batches of a hundred transfers from eight connections, and NATS is
stopped for a while (SIGSTOP) in the middle. Once a second: how many events have been written, and
how many of them are on the stream.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import nats

from bench.database_state import CONNECT_TIMEOUT_S
from bench.generators.request_script import RequestScript, ResponseMode
from bench.overload import batch_template, send
from bench.service import Service, own_stack
from bench.wallets import create_wallets
from deploy.local.processes import process_tree
from runtime.postgres.connect import connect

_WALLETS: Final = 256
_CONNECTIONS: Final = 8
_ITEMS: Final = 100
_BEFORE_S: Final = 5.0
_DRAIN_S_MAX: Final = 120.0
_WRITTEN: Final = "SELECT sum(version)::bigint FROM wallets"


class BacklogSample(msgspec.Struct, frozen=True):
    """Since the start, in seconds and events."""

    at: float
    written: int
    published: int

    @property
    def backlog(self) -> int:
        return self.written - self.published


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """The result. Rates are events/s."""

    outage_s: float
    written_before_per_s: float
    backlog_at_its_end: int
    written_while_draining_per_s: float
    published_while_draining_per_s: float
    drained_s: float | None
    """From NATS' return until the stream is less than a second of writing behind."""
    answers: dict[str, int]


@contextmanager
def _paused(service: Service) -> Iterator[None]:
    assert service.home is not None, "a stack of our own has a state directory"
    servers = list(process_tree(service.home.load().processes["nats"]))
    for server in servers:
        os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            os.kill(server.pid, signal.SIGCONT)


class Sampler:
    """Queries Postgres and NATS once per second."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.samples: list[BacklogSample] = []
        self.stream_responds = True

    async def run(self) -> None:
        database = await connect(self._service.database_url, timeout_s=CONNECT_TIMEOUT_S)
        client = await nats.connect(self._service.nats_url, max_reconnect_attempts=-1)
        published = 0
        try:
            while True:
                if self.stream_responds:
                    info = await client.jetstream().stream_info(self._service.stream)
                    published = info.state.messages
                written = await database.fetchval(_WRITTEN)
                self.samples.append(BacklogSample(time.monotonic(), written, published))
                await asyncio.sleep(1.0)
        finally:
            await database.close()
            await client.close()

    async def until_drained(self, rate: float) -> float | None:
        """Seconds from now; None: not in time."""
        began = time.monotonic()
        while time.monotonic() < began + _DRAIN_S_MAX:
            await asyncio.sleep(0.2)
            last = self.samples[-1]
            if last.at > began and last.backlog < rate:
                return last.at - began
        return None


async def measure(service: Service, folder: Path, outage_s: float) -> Outage:
    wallets = await create_wallets(service, _WALLETS)
    script = RequestScript(
        templates=[batch_template(wallet) for wallet in wallets],
        mode=ResponseMode.ITEMS,
        items_per_request=_ITEMS,
    )
    sampler = Sampler(service)
    sampling = asyncio.create_task(sampler.run())
    load = asyncio.create_task(
        send(
            service,
            script,
            folder,
            connections=_CONNECTIONS,
            seconds=2 * _BEFORE_S + outage_s + _DRAIN_S_MAX,
        )
    )
    try:
        await asyncio.sleep(_BEFORE_S)  # warm
        steady = len(sampler.samples)
        await asyncio.sleep(_BEFORE_S)
        before = _rate(sampler.samples[steady:], "written")
        sampler.stream_responds = False
        with _paused(service):
            await asyncio.sleep(outage_s)
            backlog = sampler.samples[-1].backlog
        sampler.stream_responds = True
        back = len(sampler.samples)
        drained_s = await sampler.until_drained(before)
        draining = sampler.samples[back:]
        done = await load
    finally:
        sampling.cancel()
        load.cancel()
        await asyncio.gather(sampling, load, return_exceptions=True)
    return Outage(
        outage_s=outage_s,
        written_before_per_s=round(before),
        backlog_at_its_end=backlog,
        written_while_draining_per_s=round(_rate(draining, "written")),
        published_while_draining_per_s=round(_rate(draining, "published")),
        drained_s=None if drained_s is None else round(drained_s, 1),
        answers=dict(done.statuses) | done.errors,
    )


def _rate(samples: list[BacklogSample], what: str) -> float:
    if len(samples) < 2:
        return 0.0
    first, last = samples[0], samples[-1]
    return float(getattr(last, what) - getattr(first, what)) / (last.at - first.at)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the outage")
    options = parser.parse_args()
    with own_stack() as service, tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(service, Path(folder), options.seconds))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return 0 if found.drained_s is not None else 1


if __name__ == "__main__":
    sys.exit(main())
