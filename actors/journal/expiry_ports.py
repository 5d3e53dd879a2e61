"""Port of the pending transfers that expire. Its adapters are beside those of the journal."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from wallet.ids import TransferId, WalletId
from wallet.slots import ALL_SLOTS, SlotRange


class ExpiringTransfer(NamedTuple):
    """A pending transfer, and when it expires."""

    expires_at: datetime
    wallet_id: WalletId
    transfer_id: TransferId


class Expiries(Protocol):
    """The pending transfers that expire, by time, then by wallet and transfer."""

    async def due(
        self,
        *,
        until: datetime,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: ExpiringTransfer | None = None,
        without: Collection[WalletId] = (),
    ) -> Sequence[ExpiringTransfer]:
        """The first ``limit`` of these slots that expire at ``until`` or earlier.

        ``after``: where the page before ended. ``without``: wallets to pass over.

        Raises:
            JournalUnavailable: no answer in time.
        """

    async def next_expiry(self, *, slots: Sequence[SlotRange] = ALL_SLOTS) -> datetime | None:
        """When the first of these slots expires; None: none of them does.

        Raises:
            JournalUnavailable: no answer in time.
        """
