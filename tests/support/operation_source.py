"""Generates client operations: a random mix of transfers, settlements and batches."""

from typing import Final, Literal

import msgspec

from tests.simulation.fault_probabilities import SeededRandom
from tests.support.client_state import SharedClientState
from tests.support.load_client import RequestedOperation
from verification.facts import Operation

_CONTROLS: Final[tuple[Operation, ...]] = (
    *("update", "update", "freeze", "freeze", "unfreeze", "unfreeze", "unfreeze", "close"),
)
"""Wallets are not frozen for most of the time."""
CONTROLS_BUT_CLOSE: Final = tuple(one for one in _CONTROLS if one != "close")
_DIRECTIONS: Final[tuple[Literal["both", "debit", "credit"], ...]] = ("both", "debit", "credit")


_EXPIRE_IN_S: Final = (1, 1, 2, 4)
"""While clients and faults go on, for most of them."""


class OperationMix(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are probabilities."""

    idempotent_share: float
    """Of operations with a key."""
    debit_share: float
    """Of new transfers; the others are credits."""
    pending_share: float
    """Of new transfers."""
    batch_share: float = 0.15
    """Of requests."""
    batch_size: tuple[int, int] = (2, 4)
    atomic_share: float = 0.5
    """Of batches."""
    settle_share: float = 0.35
    """Of operations on a wallet that has pending transfers."""
    key_reuse_share: float = 0.0
    """Of new transfers, under a key that another operation had."""
    amount_max: int = 500
    control_share: float = 0.0
    """Of requests that change what a wallet may do."""
    controls: tuple[Operation, ...] = _CONTROLS
    """What these do."""
    refund_share: float = 0.0
    """Of operations on a wallet that has transfers to refund."""
    expiring_share: float = 0.0
    """Of new pending transfers."""
    part_share: float = 0.0
    """Of completions."""


class OperationSource:
    """The operations of one client. Every intent and key contains its name."""

    def __init__(
        self, name: str, state: SharedClientState, random: SeededRandom, mix: OperationMix
    ) -> None:
        self._name = name
        self._state = state
        self._random = random
        self._mix = mix
        self._named = 0

    def next_intent(self) -> str:
        self._named += 1
        return f"{self._name}-{self._named}"

    def new_wallet(self) -> RequestedOperation:
        intent = self.next_intent()
        return RequestedOperation(
            intent=intent, operation="create_wallet", key=self._key_or_none(intent)
        )

    def next_request(self, wallet_id: str) -> list[RequestedOperation]:
        """The operations of the next request; two or more make a batch."""
        if self._mix.control_share and self._random.happens(self._mix.control_share):
            return [self._next_control(wallet_id)]
        if not self._random.happens(self._mix.batch_share):
            return [self._next_operation(wallet_id)]
        return [
            self._next_operation(wallet_id)
            for _ in range(self._random.count(*self._mix.batch_size))
        ]

    def _next_operation(self, wallet_id: str) -> RequestedOperation:
        intent, random, mix = self.next_intent(), self._random, self._mix
        pending = self._state.pending_of(wallet_id)
        if pending and random.happens(mix.settle_share):
            return self._with_part(
                RequestedOperation(
                    intent=intent,
                    operation="complete" if random.happens(0.5) else "revert",
                    wallet_id=wallet_id,
                    transfer_id=random.choose(pending),
                    key=self._key_or_none(intent),
                )
            )
        refundable = self._state.refundable_of(wallet_id) if mix.refund_share else []
        if refundable and random.happens(mix.refund_share):
            return self._with_expiry(
                RequestedOperation(
                    intent=intent,
                    operation="refund",
                    wallet_id=wallet_id,
                    transfer_id=random.choose(refundable),
                    # Sometimes all that is left, or too much.
                    amount=0 if random.happens(0.3) else random.count(1, mix.amount_max // 2),
                    pending=random.happens(mix.pending_share),
                    key=f"key-{intent}",
                )
            )
        reused = self._state.key_to_reuse(wallet_id) if random.happens(mix.key_reuse_share) else ""
        return self._with_expiry(
            RequestedOperation(
                intent=intent,
                operation="debit" if random.happens(mix.debit_share) else "credit",
                wallet_id=wallet_id,
                amount=random.count(1, mix.amount_max),
                pending=random.happens(mix.pending_share),
                key=reused or self._key_or_none(intent),
            )
        )

    def _with_part(self, operation: RequestedOperation) -> RequestedOperation:
        random, share = self._random, self._mix.part_share
        if operation.operation != "complete" or not share or not random.happens(share):
            return operation
        # Sometimes too much, since the transfer's own amount is not known here.
        amount = random.count(1, max(self._mix.amount_max // 4, 1))
        final = not operation.key or random.happens(0.5)
        return msgspec.structs.replace(operation, amount=amount, final=final)

    def _with_expiry(self, operation: RequestedOperation) -> RequestedOperation:
        random, share = self._random, self._mix.expiring_share
        if not operation.pending or not share or not random.happens(share):
            return operation
        return msgspec.structs.replace(
            operation,
            expires_in_s=random.choose(_EXPIRE_IN_S),
            on_expiry="complete" if random.happens(0.5) else "fail",
        )

    def _next_control(self, wallet_id: str) -> RequestedOperation:
        intent, random = self.next_intent(), self._random
        operation = random.choose(self._mix.controls)
        return RequestedOperation(
            intent=intent,
            operation=operation,
            wallet_id=wallet_id,
            amount=random.count(0, self._mix.amount_max) if operation == "update" else 0,
            direction=random.choose(_DIRECTIONS) if operation == "freeze" else "",
            key=self._key_or_none(intent),
        )

    def _key_or_none(self, intent: str) -> str:
        return f"key-{intent}" if self._random.happens(self._mix.idempotent_share) else ""
