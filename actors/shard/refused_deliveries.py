"""Refusals that bind: what was refused on a later delivery is never applied by an earlier one.

Decision 0032. A transfer is refused for good under its own id. A completion of a frozen wallet is
refused under the id of its deliveries: the transfer may be completed later, by another request.
"""

from actors.journal.ports import CommitRequest, LoadedState, TransferKey
from actors.shard.stored_answers import encode_refusal, refusal_from
from wallet.commands import Command, CommandRequest, CreateTransfer, SettleTransfer
from wallet.ids import WalletId
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode


class RefusedDeliveries:
    """What was refused before the batch, and what it refuses for good."""

    def __init__(self, loaded: LoadedState, write: CommitRequest) -> None:
        self._loaded = loaded.refused
        self._answers: dict[TransferKey, bytes] = dict(loaded.refused)
        self._write = write

    def refuse(self, request: CommandRequest, command: Command, refusal: Refusal) -> None:
        """Make sure that an earlier delivery of what is refused now is never applied. (INV-7)

        A command with an idempotency key needs no record for that. Nor does a refusal that no later
        state can change.
        """
        key = _key_of(request.wallet_id, command, refusal)
        if key is not None and key not in self._answers:
            self._answers[key] = self._write.refused[key] = encode_refusal(refusal)

    def answer(self, key: TransferKey) -> Refusal | None:
        """The refusal of a transfer or of a delivery; None: it was not refused for good.

        Raises:
            JournalError: it can't be decoded.
        """
        answer = self._answers.get(key)
        if answer is None:
            return None
        self._write.confirm |= key in self._loaded
        return refusal_from(answer)

    def apply(self, wallet_id: WalletId, command: SettleTransfer) -> None:
        """``command`` is applied: the commit checks that it was not refused meanwhile."""
        if command.delivery_id is not None:
            self._write.deliveries.add((wallet_id, command.delivery_id))

    def undo(self, request: CommandRequest) -> None:
        """Nothing of ``request`` is applied."""
        for item in request.items:
            if isinstance(item.command, SettleTransfer) and item.command.delivery_id is not None:
                self._write.deliveries.discard((request.wallet_id, item.command.delivery_id))


def _key_of(wallet_id: WalletId, command: Command, refusal: Refusal) -> TransferKey | None:
    """What has to be remembered of a refused command; None: nothing."""
    if isinstance(command, CreateTransfer) and refusal.code in STORED_UNDER_KEY:
        return wallet_id, command.transfer_id
    if isinstance(command, SettleTransfer) and refusal.code is RefusalCode.WALLET_FROZEN:
        # The other refusals of a settlement are final by themselves.
        return (wallet_id, command.delivery_id) if command.delivery_id is not None else None
    return None
