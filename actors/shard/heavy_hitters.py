"""Hot wallets (heavy hitters): the wallets with the most commands per time window.

Counting every wallet permanently would cost memory. A window's counts are pruned to the largest
when there are too many, so hot wallets are counted exactly or nearly so.
"""

from collections import Counter
from heapq import nlargest
from typing import Final

import msgspec

from wallet.ids import WalletId

WINDOW_S: Final = 5.0
"""Length of a window. Results are those of the last complete window."""

TOP_K: Final = 5
"""Hottest wallets that a shard reports."""

LABELLED_MAX: Final = 20
"""Wallets used as metric labels in a process' lifetime: each label is one more time series."""

OTHER: Final = "other"

_LABEL_SHARE_MIN: Final = 0.1
_TRACKED_MAX: Final = 4_000
_PRUNE_TO: Final = 1_000


class HotWallet(msgspec.Struct, frozen=True):
    """A hot wallet in the last complete window. ``share``: of its shard's commands, 0 to 1."""

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
        """Of the whole shard, in the last complete window."""
        self.hottest: list[HotWallet] = []
        """Hottest first, at most `TOP_K`."""
        self.labelled_commands: Counter[str] = Counter()
        """Commands of wallets in windows in which they had a tenth of the shard's or more."""

    def add(self, wallet_id: WalletId, commands: int) -> None:
        counts = self._counts
        counts[wallet_id] = counts.get(wallet_id, 0) + commands
        self._commands += commands
        if len(counts) > _TRACKED_MAX:
            self._counts = dict(nlargest(_PRUNE_TO, counts.items(), key=_commands_of))

    def roll_window(self, now: float) -> None:
        """End the window if it is over. Call this before reading the results."""
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
