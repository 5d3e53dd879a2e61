"""State shared by the clients of a run: history, wallets and pending transfers."""

from collections import defaultdict
from collections.abc import Sequence

from verification.facts import ClientCall
from verification.responses import parse_transfer, parse_wallet


class SharedClientState:
    """Settled transfers are kept, because clients also settle them a second time."""

    def __init__(self) -> None:
        self.history: list[ClientCall] = []
        self.wallets: list[str] = []
        self._pending: defaultdict[str, list[str]] = defaultdict(list)
        self._refundable: defaultdict[str, list[str]] = defaultdict(list)
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._keys: defaultdict[str, list[str]] = defaultdict(list)

    def record(self, attempts: Sequence[ClientCall], _asked: int) -> None:
        """Implements `load_client.Record`."""
        for attempt in attempts:
            self.history.append(attempt)
            if attempt.key and attempt.wallet_id:
                self._keys[attempt.wallet_id].append(attempt.key)
            if attempt.outcome == "acknowledged":
                self._learn(attempt)

    def _learn(self, attempt: ClientCall) -> None:
        if attempt.operation == "create_wallet":
            wallet_id = parse_wallet(attempt.body).wallet_id
            if wallet_id not in self.wallets:
                self.wallets.append(wallet_id)
            return
        self._versions[attempt.wallet_id] = max(self._versions[attempt.wallet_id], attempt.version)
        if attempt.pending:
            self._pending[attempt.wallet_id].append(parse_transfer(attempt.body).transfer_id)
        elif attempt.operation in ("debit", "credit", "complete", "refund"):
            self._refundable[attempt.wallet_id].append(parse_transfer(attempt.body).transfer_id)

    def pending_of(self, wallet_id: str) -> list[str]:
        return self._pending[wallet_id][-4:]

    def refundable_of(self, wallet_id: str) -> list[str]:
        """Transfers that have completed something; some are refunds, which are refused."""
        return self._refundable[wallet_id][-4:]

    def version_of(self, wallet_id: str) -> int:
        return self._versions[wallet_id]

    def key_to_reuse(self, wallet_id: str) -> str:
        return self._keys[wallet_id][-1] if self._keys[wallet_id] else ""
