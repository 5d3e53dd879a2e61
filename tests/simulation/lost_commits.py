"""What a database lost when it was taken back to an earlier moment."""

from functools import cached_property

from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import IdempotencyKeyRef, TransferKey
from wallet.events import RecordedEvent
from wallet.ids import WalletId

EventIdentity = tuple[WalletId, int, bytes]
"""Wallet, version and hash."""


def identity_of(recorded: RecordedEvent) -> EventIdentity:
    wallet = recorded.wallet_after
    return wallet.id, wallet.version, wallet.hash


class LostCommits:
    """The difference between a database ``before`` and ``after`` a failover.

    ``moment``: of the failover, on the clock of the clients' calls.
    """

    def __init__(self, *, moment: int, before: MemoryDatabase, after: MemoryDatabase) -> None:
        self.moment = moment
        self.before = before
        self.events = before.events[len(after.events) :]
        self.keys: set[IdempotencyKeyRef] = (
            before.idempotency_keys.keys() - after.idempotency_keys.keys()
        )
        self.refused: set[TransferKey] = (
            before.refused_deliveries.keys() - after.refused_deliveries.keys()
        )
        assert before.events[: len(after.events)] == after.events, "a standby is behind, no more"

    @cached_property
    def by_version(self) -> dict[tuple[str, int], RecordedEvent]:
        """Lost events by wallet and version."""
        return {(one.wallet_after.id, one.wallet_after.version): one for one in self.events}

    @cached_property
    def wallets(self) -> set[str]:
        """Wallets with lost events."""
        return {wallet_id for wallet_id, _ in self.by_version}

    @cached_property
    def refusals(self) -> set[bytes]:
        """Lost answers of transfers that were refused permanently."""
        return {self.before.refused_deliveries[one] for one in self.refused}

    @cached_property
    def wallets_with_refusals(self) -> set[str]:
        """Wallets in which transfers that were refused permanently are no longer refused."""
        return {wallet_id for wallet_id, _ in self.refused}
