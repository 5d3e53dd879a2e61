"""Which wallets are hot: the ones that take the most commands, window by window.

Counting every wallet for ever would cost memory; counting the hot ones doesn't. A window's counts
are pruned to the largest when there are many, so what is hot is counted exactly, or nearly.
"""

from collections import Counter
from heapq import nlargest
from typing import Final

import msgspec

from wallet.ids import WalletId

WINDOW_S: Final = 5.0
"""A wallet is as hot as it was in the last whole window."""

TOP_K: Final = 5
"""Hottest wallets that a shard tells of."""

LABELLED_MAX: Final = 20
"""Wallets that metrics name in a process' life: every name is a time series, for ever."""

OTHER: Final = "other"

_LABEL_SHARE_MIN: Final = 0.1
_TRACKED_MAX: Final = 4_000
_PRUNE_TO: Final = 1_000


class HotWallet(msgspec.Struct, frozen=True):
    """A hot wallet in the last whole window. ``share``: of its shard's commands, 0 to 1."""

    wallet_id: WalletId
    commands_per_s: float
    share: float


class HotWalletTracker:
    """Counts commands by wallet. Times are loop times, in seconds."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._counts: dict[WalletId, int] = {}
        self._commands = 0
        self.commands_per_s = 0.0
        """Of the whole shard, in the last whole window."""
        self.hottest: list[HotWallet] = []
        """Hottest first, at most `TOP_K`."""
        self.labelled_commands: Counter[str] = Counter()
        """Commands of wallets while they took a tenth of the shard's or more."""

    def add(self, wallet_id: WalletId, commands: int) -> None:
        counts = self._counts
        counts[wallet_id] = counts.get(wallet_id, 0) + commands
        self._commands += commands
        if len(counts) > _TRACKED_MAX:
            self._counts = dict(nlargest(_PRUNE_TO, counts.items(), key=_commands_of))

    def roll_window(self, now: float) -> None:
        """End the window if it is over: the asker of the results calls this first."""
        if self._began is None:
            self._began = now
        passed_s = now - self._began
        if passed_s < WINDOW_S:
            return
        self.commands_per_s = self._commands / passed_s
        top = nlargest(TOP_K, self._counts.items(), key=_commands_of)
        self.hottest = [
            HotWallet(wallet_id, count / passed_s, count / self._commands)
            for wallet_id, count in top
        ]
        for wallet_id, count in top:
            if count >= _LABEL_SHARE_MIN * self._commands:
                self.labelled_commands[self._label_for(wallet_id)] += count
        self._began, self._counts, self._commands = now, {}, 0

    def _label_for(self, wallet_id: WalletId) -> str:
        known = wallet_id in self.labelled_commands or len(self.labelled_commands) < LABELLED_MAX
        return wallet_id if known else OTHER


def _commands_of(counted: tuple[WalletId, int]) -> int:
    return counted[1]
