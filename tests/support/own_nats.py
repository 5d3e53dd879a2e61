"""A NATS server that a test can stop, and start again on the same port with other files."""

import shutil
from contextlib import ExitStack
from pathlib import Path

from deploy.local import nats
from deploy.local.ports import free_port
from tests.support.reaper import killed_on_exit


class OwnNats:
    """A NATS server that a test can restart on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self._options = nats.NatsOptions(
            folder=folder / "nats", port=free_port(), log_file=folder / "nats.log", sync_s=300.0
        )
        self._kept = folder / "kept"
        self._running = ExitStack()

    @property
    def url(self) -> str:
        return self._options.url

    @property
    def reader_url(self) -> str:
        return self._options.reader_url

    def start(self) -> None:
        process = nats.start(self._options)
        self._running.callback(nats.stop_server, process)
        self._running.enter_context(killed_on_exit(process))
        nats.wait_until_ready(self._options, process)

    def stop(self) -> None:
        self._running.close()

    def keep(self) -> None:
        """Save its stored messages as the state on disk. It must not run."""
        shutil.copytree(self._options.folder, self._kept, dirs_exist_ok=True)

    def lose_power(self) -> None:
        """Stop it and put the saved state back; messages stored since `keep` are lost."""
        self.stop()
        shutil.rmtree(self._options.folder)
        shutil.copytree(self._kept, self._options.folder)
