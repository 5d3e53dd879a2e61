"""A NATS server, and what an operator or a failing machine does to it and to its streams."""

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import nats as nats_client
import psutil
from nats.js import JetStreamContext

from deploy.local import nats
from deploy.local.ports import free_port
from deploy.local.processes import ProcessRecord, kill, process_tree
from tests.support.published import STREAM

_SYNC_S: Final = 1.0
_RETRY_S: Final = 0.2
_ANSWER_S: Final = 30.0


class NatsNode:
    """A server with JetStream in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = nats.NatsOptions(
            folder=folder / "nats", port=free_port(), log_file=folder / "nats.log", sync_s=_SYNC_S
        )
        self._process: ProcessRecord | None = None

    @property
    def url(self) -> str:
        return self._options.url

    # -- process -----------------------------------------------------------------------------------

    def start(self, *, store_bytes_max: int | None = None) -> None:
        """Start; returns when it accepts connections. ``store_bytes_max``: its disk's size."""
        options = replace(self._options, store_bytes_max=store_bytes_max)
        self._process = nats.start(options)
        (self._folder / "nats.process").write_text(self._process.model_dump_json())
        nats.wait_until_ready(options, self._process)

    def kill(self) -> None:
        """kill −9."""
        if self._process is not None:
            kill(process_tree(self._process))

    def copy_store(self) -> Path:
        """A copy of its files as of one moment, as a snapshot of its disk would be."""
        copy = self._folder / "nats-copy"
        shutil.rmtree(copy, ignore_errors=True)
        self._signal(signal.SIGSTOP)
        try:
            shutil.copytree(self._store, copy)
        finally:
            self._signal(signal.SIGCONT)
        return copy

    def put_back(self, copy: Path) -> None:
        """Replace the files of a killed server by a copy."""
        shutil.rmtree(self._store)
        shutil.copytree(copy, self._store)

    @property
    def _store(self) -> Path:
        return self._options.folder / "jetstream"

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for process in process_tree(self._process):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    # -- streams -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """A connection of an operator, which waits until the server answers."""
        client = await self._connect()
        try:
            yield client.jetstream(timeout=_ANSWER_S)
        finally:
            await client.close()

    async def purge(self) -> None:
        """Remove every message of the stream."""
        async with self.jetstream() as jetstream:
            await jetstream.purge_stream(STREAM)

    async def delete_consumers(self, prefix: str) -> list[str]:
        """Delete the consumers whose names begin so; returns their names."""
        async with self.jetstream() as jetstream:
            names = [one.name for one in await jetstream.consumers_info(STREAM)]
            deleted = [name for name in names if name.startswith(prefix)]
            for name in deleted:
                await jetstream.delete_consumer(STREAM, name)
        return deleted

    async def stored_bytes(self) -> int:
        """The size of all streams, as NATS counts it."""
        async with self.jetstream() as jetstream:
            return int((await jetstream.account_info()).storage)

    async def last_sequence(self) -> int:
        """The sequence of the stream's newest message."""
        async with self.jetstream() as jetstream:
            return int((await jetstream.stream_info(STREAM)).state.last_seq)

    async def _connect(self) -> nats_client.aio.client.Client:
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                return await nats_client.connect(
                    self.url,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    connect_timeout=2,
                    error_cb=_ignore,
                )
            except (OSError, TimeoutError, nats_client.errors.Error):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY_S)


async def _ignore(_failure: Exception) -> None:
    """The connection's last failure is raised anyway."""
