"""The wallets that are active on a shard: a cache that can be dropped at any time."""

from collections import OrderedDict

from wallet.ids import TransferId, WalletId
from wallet.state import Transfer, TransferStatus, Wallet


class ActiveWallet:
    """One cached wallet: its state at a version, and its pending transfers.

    ``pending`` may lack transfers (they are read when needed) but holds no settled ones.
    """

    __slots__ = ("pending", "state")

    def __init__(self, state: Wallet) -> None:
        self.state = state
        self.pending: dict[TransferId, Transfer] = {}


class WalletCache:
    """LRU cache of wallets; of a wallet's pending transfers the oldest are evicted first."""

    def __init__(self, *, wallets_max: int, transfers_max: int) -> None:
        self._wallets_max = wallets_max
        self._transfers_max = transfers_max
        self._wallets: OrderedDict[WalletId, ActiveWallet] = OrderedDict()
        self.activations = 0

    def __len__(self) -> int:
        return len(self._wallets)

    def get(self, wallet_id: WalletId) -> ActiveWallet | None:
        return self._wallets.get(wallet_id)

    def put(self, state: Wallet) -> None:
        """Activate a wallet, or move an active one to its next state."""
        active = self._wallets.get(state.id)
        if active is None:
            self._wallets[state.id] = ActiveWallet(state)
            self.activations += 1
            if len(self._wallets) > self._wallets_max:
                self._wallets.popitem(last=False)
            return
        assert state.version >= active.state.version, "INV-8 a cached version never goes back"
        active.state = state
        self._wallets.move_to_end(state.id)

    def put_transfer(self, wallet_id: WalletId, transfer: Transfer) -> None:
        """Cache a pending transfer of an active wallet; drop a settled one."""
        active = self._wallets.get(wallet_id)
        if active is None:
            return
        if transfer.status is not TransferStatus.PENDING:
            active.pending.pop(transfer.id, None)
            return
        active.pending[transfer.id] = transfer
        if len(active.pending) > self._transfers_max:
            del active.pending[next(iter(active.pending))]

    def forget(self, wallet_id: WalletId) -> None:
        self._wallets.pop(wallet_id, None)

    def clear(self) -> None:
        """Drop every wallet."""
        self._wallets.clear()
