"""What the clients of a run know together: the history, the wallets, the transfers to settle."""

from collections import defaultdict

import msgspec

from tests.simulation.loop import SimulatedLoop
from verification.answers import told_transfer, told_wallet
from verification.evidence import Attempt
from wallet.representation import WalletView


class Books:
    """Shared by the clients. Settled transfers stay: settling them again is asked for, too."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.history: list[Attempt] = []
        self.wallets: list[str] = []
        self._pending: defaultdict[str, list[str]] = defaultdict(list)
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._keys: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.history.append(attempt)
            if attempt.key and attempt.wallet_id:
                self._keys[attempt.wallet_id].append(attempt.key)
            if attempt.outcome == "acknowledged":
                self._learn(attempt)

    def _learn(self, attempt: Attempt) -> None:
        if attempt.operation == "create_wallet":
            wallet_id = told_wallet(attempt.body).wallet_id
            if wallet_id not in self.wallets:
                self.wallets.append(wallet_id)
            return
        self._versions[attempt.wallet_id] = max(self._versions[attempt.wallet_id], attempt.version)
        if attempt.pending:
            self._pending[attempt.wallet_id].append(told_transfer(attempt.body).transfer_id)

    def add_read(
        self, intent: str, view: WalletView, started: int, *, strong: bool, min_version: int
    ) -> None:
        self._versions[view.id] = max(self._versions[view.id], view.version)
        self.history.append(
            Attempt(
                intent=intent,
                operation="read",
                wallet_id=view.id,
                started=started,
                ended=self._loop.moment(),
                outcome="acknowledged",
                body=msgspec.json.encode(view).decode(),
                version=view.version,
                min_version=min_version,
                strong=strong,
            )
        )

    def pending_of(self, wallet_id: str) -> list[str]:
        return self._pending[wallet_id][-4:]

    def version_of(self, wallet_id: str) -> int:
        return self._versions[wallet_id]

    def key_to_reuse(self, wallet_id: str) -> str:
        return self._keys[wallet_id][-1] if self._keys[wallet_id] else ""
