"""Requests that a shard decides together, and the outcomes of earlier attempts."""

from actors.shard.mailbox import QueuedRequest
from wallet.ids import WalletId


class RetryGroup:
    """Queued requests that are decided together, and the outcomes of earlier attempts."""

    __slots__ = ("commit_rejected", "conflicts", "queued_requests", "unknown_outcomes")

    def __init__(
        self,
        queued_requests: list[QueuedRequest],
        *,
        conflicts: int = 0,
        unknown_outcomes: int = 0,
        commit_rejected: bool = False,
    ) -> None:
        self.queued_requests = queued_requests
        self.conflicts = conflicts
        self.unknown_outcomes = unknown_outcomes
        """Commits that got no response."""
        self.commit_rejected = commit_rejected
        """A commit was rejected as a whole: another shard may have applied an earlier delivery."""

    @property
    def maybe_applied(self) -> bool:
        """Whether what the requests create may be in the journal already."""
        return self.commit_rejected or self.unknown_outcomes > 0

    def again(
        self,
        *,
        queued_requests: list[QueuedRequest] | None = None,
        conflicts: int | None = None,
        unknown_outcomes: int | None = None,
        commit_rejected: bool = False,
    ) -> "RetryGroup":
        """A copy for the next attempt, with the given fields changed."""
        return RetryGroup(
            self.queued_requests if queued_requests is None else queued_requests,
            conflicts=self.conflicts if conflicts is None else conflicts,
            unknown_outcomes=self.unknown_outcomes
            if unknown_outcomes is None
            else unknown_outcomes,
            commit_rejected=self.commit_rejected or commit_rejected,
        )

    def split(self, wallet_ids: frozenset[WalletId]) -> list["RetryGroup"]:
        """Two groups: requests of other wallets, then of ``wallet_ids``. One if either is empty.

        A wallet's requests stay together and in order. The others count conflicts from zero.
        """
        of_them = [one for one in self.queued_requests if one.request.wallet_id in wallet_ids]
        others = [one for one in self.queued_requests if one.request.wallet_id not in wallet_ids]
        if not others or not of_them:
            return [self]
        return [
            self.again(queued_requests=others, conflicts=0),
            self.again(queued_requests=of_them),
        ]
