"""Requests that a shard decides together, and how often it has tried to."""

from actors.shard.mailbox import QueuedRequest
from wallet.ids import WalletId


class RetryGroup:
    """Entries that are decided together, and what became of the tries to do so."""

    __slots__ = ("conflicts", "entries", "refused_whole", "unknown_outcomes")

    def __init__(
        self,
        entries: list[QueuedRequest],
        *,
        conflicts: int = 0,
        lost: int = 0,
        refused_whole: bool = False,
    ) -> None:
        self.entries = entries
        self.conflicts = conflicts
        self.unknown_outcomes = lost
        """Commits whose answers never came."""
        self.refused_whole = refused_whole
        """A commit was refused: an earlier delivery may have been applied by somebody else."""

    @property
    def maybe_applied(self) -> bool:
        """Whether what the entries create may be in the journal already."""
        return self.refused_whole or self.unknown_outcomes > 0

    def again(
        self,
        *,
        entries: list[QueuedRequest] | None = None,
        conflicts: int | None = None,
        lost: int | None = None,
        refused_whole: bool = False,
    ) -> "RetryGroup":
        """The same for another try, but for what is given."""
        return RetryGroup(
            self.entries if entries is None else entries,
            conflicts=self.conflicts if conflicts is None else conflicts,
            lost=self.unknown_outcomes if lost is None else lost,
            refused_whole=self.refused_whole or refused_whole,
        )

    def split(self, wallet_ids: frozenset[WalletId]) -> list["RetryGroup"]:
        """Entries of other wallets, if there are any, then those of ``wallet_ids``.

        A wallet's entries stay together and in order. The others count conflicts from zero.
        """
        of_them = [one for one in self.entries if one.submission.wallet_id in wallet_ids]
        others = [one for one in self.entries if one.submission.wallet_id not in wallet_ids]
        if not others or not of_them:
            return [self]
        return [self.again(entries=others, conflicts=0), self.again(entries=of_them)]
