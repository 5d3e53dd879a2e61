"""The service on a Postgres cluster and a NATS server of its own.

A watcher stops everything and removes the data when the run ends, even if it is killed.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.local.ports import free_port
from deploy.local.postgres_layout import remove_data, resolve_layout
from deploy.local.processes import ProcessRecord, kill, process_tree
from deploy.local.state_dir import StateDirectory
from tests.drills.filesystems import unmount_all
from tests.drills.nats_node import NatsNode
from tests.drills.postgres_cluster import PostgresCluster
from tests.drills.tcp_link import TcpLink, tcp_link
from tests.support.reaper import watched
from tests.support.running_service import RunningService

ALL_HOSTS: Final = os.environ.get("WALLET_DRILLS_ADDRESS", "hosts") == "hosts"
"""Whether the service's DSN names both hosts. With ``moved`` it names one address, which is moved
to the new primary after a promotion, as a cluster manager moves a virtual address."""

_STOP_TIMEOUT_S: Final = 300.0


class DrillStack:
    """Created by `drill_stack`, running."""

    def __init__(self, folder: Path, cluster: PostgresCluster, nats: NatsNode) -> None:
        self.folder = folder
        self.cluster = cluster
        self.nats = nats
        self.url = f"http://127.0.0.1:{free_port()}"
        self.address: TcpLink
        self.service: RunningService

    def start(self, address: TcpLink) -> None:
        """Start the service. ``address``: leads to the primary."""
        self.address = address
        cluster = self.cluster
        database_url = cluster.url_of_all_hosts if ALL_HOSTS else cluster.url_at(address.port)
        self.service = service_of(
            self.folder,
            self.url,
            {"WALLET_DATABASE_URL": database_url, "WALLET_NATS_URL": self.nats.url},
        )
        self.service.start()

    def promote(self) -> None:
        """Promote the standby; returns when it accepts writes at the service's address."""
        self.cluster.promote()
        self.follow_primary()

    def switch_over(self) -> None:
        """A planned switch to the standby, at the service's address, too."""
        self.cluster.switch_over()
        self.follow_primary()

    def follow_primary(self) -> None:
        """Move the service's address to the present primary."""
        self.address.lead_to(self.cluster.primary.port)


def service_of(folder: Path, url: str, settings: dict[str, str]) -> RunningService:
    """The `wallet up` stack whose state directory is in a folder."""
    return RunningService(
        url=url,
        database_url=settings.get("WALLET_DATABASE_URL", ""),
        nats_url=settings.get("WALLET_NATS_URL", ""),
        state_dir=StateDirectory(folder / "home"),
        settings=settings,
    )


@contextmanager
def drill_stack() -> Iterator[DrillStack]:
    """The service with a single primary, stopped when the context ends."""
    folder = Path(tempfile.mkdtemp(prefix="wallet-drills-"))
    folder.chmod(0o755)  # Postgres' own account must get in
    with watched("tests.drills.stack", str(folder), timeout_s=_STOP_TIMEOUT_S):
        cluster, nats = PostgresCluster(folder), NatsNode(folder)
        cluster.start()
        nats.start()
        with tcp_link(cluster.primary.port) as address:
            stack = DrillStack(folder, cluster, nats)
            stack.start(address)
            yield stack


def _remove_when_the_run_ends(folder: Path) -> None:
    sys.stdin.read()
    service = service_of(folder, "", {})
    if (folder / "home").exists():
        with suppress(AssertionError):
            service.stop()
        with suppress(AssertionError):
            service.wallet("clean", "--yes")
    for file in folder.glob("*.process"):
        kill(process_tree(ProcessRecord.model_validate_json(file.read_bytes())))
    place = resolve_layout(folder / "postgres")
    for below in (folder, place.parent):
        unmount_all(below)
    remove_data(folder / "postgres")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _remove_when_the_run_ends(Path(sys.argv[1]))
