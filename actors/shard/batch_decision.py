"""Decides a batch: command requests in, one transaction and the replies out. Pure functions.

Nothing here waits or keeps state between batches. A batch is decided on the cache and on what was
loaded for it, in order, each command on the state that the previous one left. If the transaction
is rejected, the decisions are discarded.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from actors.journal.ports import LoadedState, StoredAnswer, TransferKey
from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    ItemResult,
    KeyClaimed,
    Refused,
    RequestResult,
)
from actors.shard.batch_state import BatchState
from actors.shard.cache import WalletCache
from actors.shard.idempotency import (
    BATCH_RECOVERED,
    KEY_REUSED,
    binds_the_key,
    digest_of,
    is_kept,
    is_same_request,
)
from actors.shard.refused_deliveries import RefusedDeliveries
from actors.shard.stored_answers import (
    batch_result_from,
    claim_from,
    item_result_from,
    stored_answer,
)
from wallet.commands import (
    ClaimKey,
    Command,
    CommandItem,
    CommandRequest,
    ControlWallet,
    CreateTransfer,
    CreateWallet,
    ExpireTransfer,
    Idempotency,
    RefundTransfer,
    SettleTransfer,
)
from wallet.control_rules import decide_control
from wallet.expiry_rules import ANY_EXPIRY, ExpiryBounds
from wallet.fold import evolve
from wallet.ids import TransferId, WalletId
from wallet.refund_rules import decide_refund
from wallet.refusals import Refusal, RefusalCode
from wallet.representation import (
    ENCODER,
    balances_view,
    changed_view,
    encode_transfer,
    wallet_view,
)
from wallet.rules import decide_creation, decide_expiry, decide_settlement, decide_transfer
from wallet.state import Refunded, Transfer, Wallet


class BatchDecider:
    """Decides one batch. Call ``decide`` for each request in order, then commit ``write``.

    ``maybe_applied``: an earlier attempt was rejected as a whole, or its outcome is unknown.
    ``outcome_unknown``: it may still be applied, so what is refused now is refused permanently.
    """

    def __init__(
        self,
        *,
        cache: WalletCache,
        loaded: LoadedState,
        now: datetime,
        maybe_applied: bool = False,
        outcome_unknown: bool = False,
        expiry_bounds: ExpiryBounds = ANY_EXPIRY,
    ) -> None:
        self._loaded = loaded
        self._now = now
        self._maybe_applied = maybe_applied or outcome_unknown
        self._outcome_unknown = outcome_unknown
        self._expiry_bounds = expiry_bounds
        self._references = dict(loaded.references)
        self.replays = 0
        self.refusals: list[RefusalCode] = []
        self._state = BatchState(cache=cache, loaded=loaded, now=now)
        self.write = self._state.write
        self._keys = self._state.keys
        self._refused = RefusedDeliveries(loaded, self.write)

    @property
    def first_expiry(self) -> datetime | None:
        """When the first of the transfers expires that this batch creates."""
        return self._state.first_expiry

    @property
    def transfers(self) -> Mapping[TransferKey, Transfer]:
        """Transfers as the batch leaves them, loaded ones included."""
        return self._state.transfers

    def decide(self, request: CommandRequest) -> RequestResult:
        """The result of ``request``, valid once ``write`` is committed.

        Raises:
            JournalError: a stored answer can't be decoded.
        """
        if request.is_batch:
            if request.idempotency is None:
                return self._decide_batch(request)
            return self._decide_idempotent_batch(request, request.idempotency)
        assert len(request.items) == 1, "several items are a batch"
        (item,) = request.items
        if isinstance(item.command, ClaimKey):
            assert item.idempotency is not None, "a key is claimed under itself"
            return self._claim_key(request, item.idempotency)
        return self._decide_item(request, item)

    # -- several items -----------------------------------------------------------------------

    def _decide_idempotent_batch(
        self, request: CommandRequest, idempotency: Idempotency
    ) -> Refused | BatchCommitted | BatchRolledBack:
        stored = self._find_stored(request, idempotency)
        if isinstance(stored, Refused):
            return stored
        if stored is not None and stored.recovered:
            return self._refuse(request, BATCH_RECOVERED)
        if stored is not None:
            return batch_result_from(stored, replayed=self._is_replay(request, stored))
        result = self._decide_batch(request)
        # An item of the batch may have the same idempotency key.
        if is_kept(result, idempotency) and (request.wallet_id, idempotency.key) not in self._keys:
            self._store_under_key(request, idempotency, result)
        return result

    def _decide_batch(self, request: CommandRequest) -> BatchCommitted | BatchRolledBack:
        for item in request.items:
            # Before the mark: an atomic batch that is refused doesn't undo it.
            if isinstance(item.command, SettleTransfer | ExpireTransfer):
                self._expire_if_due(request.wallet_id, item.command.transfer_id)
            elif isinstance(item.command, RefundTransfer):
                self._expire_if_due(request.wallet_id, item.command.refunds)
        mark = self._state.mark(request.wallet_id)
        digest = digest_of(request, request.idempotency)
        results: list[ItemResult] = []
        for index, item in enumerate(request.items):
            result = self._decide_item(request, item, digest)
            if isinstance(result, Refused) and request.atomic:
                self._state.roll_back(mark)
                self._refused.undo(request)
                if request.idempotency is None and self._may_be_applied_yet(request):
                    self._refused.refuse(request, item.command, result.refusal)
                return BatchRolledBack(index=index, refusal=result.refusal)
            results.append(result)
        wallet = self._state.wallet_with_version_check(request.wallet_id)
        if wallet is None:
            return BatchCommitted(items=tuple(results))
        return BatchCommitted(items=tuple(results), wallet=ENCODER.encode(balances_view(wallet)))

    # -- one item ----------------------------------------------------------------------------

    def _decide_item(
        self, request: CommandRequest, item: CommandItem, batch_digest: bytes = b""
    ) -> ItemResult:
        if item.idempotency is None:
            result = self._decide_command(request, item.command, batch_digest)
            if isinstance(result, Refused) and self._may_be_applied_yet(request):
                self._refused.refuse(request, item.command, result.refusal)
            return result
        stored = self._find_stored(request, item.idempotency)
        if isinstance(stored, Refused):
            return stored
        if stored is not None:
            return item_result_from(stored, replayed=self._is_replay(request, stored))
        digest = digest_of(request, item.idempotency)
        result = self._decide_command(request, item.command, digest)
        if binds_the_key(result):
            self._store_under_key(request, item.idempotency, result)
        return result

    def _may_be_applied_yet(self, request: CommandRequest) -> bool:
        """Whether an earlier delivery or attempt of ``request`` may still reach the journal."""
        return self._outcome_unknown or request.attempt > 1

    # -- idempotency keys --------------------------------------------------------------------

    def _find_stored(
        self, request: CommandRequest, idempotency: Idempotency
    ) -> StoredAnswer | Refused | None:
        """The answer stored under the key; a refusal if the key belongs to another request."""
        stored = self._keys.get((request.wallet_id, idempotency.key))
        if stored is None:
            return None
        # INV-6: one key, one request, one answer.
        if not is_same_request(idempotency, stored):
            return self._refuse(request, KEY_REUSED)
        self.replays += 1
        self.write.confirm |= (request.wallet_id, idempotency.key) in self._loaded.keys
        return stored

    def _is_replay(self, request: CommandRequest, stored: StoredAnswer) -> bool:
        """Whether the client repeats a request: our own redelivery or retry is no replay."""
        maybe_applied = self._maybe_applied or request.attempt > 1
        return not maybe_applied or stored.request_id != request.request_id

    def _claim_key(self, request: CommandRequest, idempotency: Idempotency) -> KeyClaimed | Refused:
        stored = self._find_stored(request, idempotency)
        if isinstance(stored, Refused):
            return stored
        if stored is not None:
            return claim_from(stored, replayed=self._is_replay(request, stored))
        claimed = KeyClaimed(request_id=request.request_id)
        self._store_under_key(request, idempotency, claimed)
        return claimed

    def _store_under_key(
        self,
        request: CommandRequest,
        idempotency: Idempotency,
        result: ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack,
    ) -> None:
        key = (request.wallet_id, idempotency.key)
        assert key not in self._keys, "INV-6 one key, one answer"
        stored = stored_answer(result, idempotency, request.request_id)
        self._keys[key] = self.write.stored_answers[key] = stored

    # -- one command -------------------------------------------------------------------------

    def _decide_command(
        self, request: CommandRequest, command: Command, key_digest: bytes
    ) -> ItemResult:
        if isinstance(command, CreateTransfer):
            decision = self._decide_transfer(request, command, key_digest)
        elif isinstance(command, SettleTransfer):
            decision = self._decide_settlement(request, command, key_digest)
        elif isinstance(command, RefundTransfer):
            decision = self._decide_refund(request, command, key_digest)
        elif isinstance(command, CreateWallet):
            decision = self._decide_creation(request, command, key_digest)
        elif isinstance(command, ExpireTransfer):
            return self._decide_expiry(request.wallet_id, command)
        else:
            assert not isinstance(command, ClaimKey), "a key is claimed alone"
            decision = self._decide_control(request, command, key_digest)
        if isinstance(decision, Refusal):
            return self._refuse(request, decision)
        return decision

    def _decide_transfer(
        self, request: CommandRequest, command: CreateTransfer, key_digest: bytes
    ) -> ItemResult | Refusal:
        wallet_id = request.wallet_id
        key = (wallet_id, command.transfer_id)
        earlier = self._loaded.created_transfers.get(key) or self._state.created_transfers.get(key)
        if earlier is not None:
            # INV-7: a transfer id is applied once, however often it is delivered.
            self.write.confirm |= key in self._loaded.created_transfers
            version = earlier.wallet_after.version
            return Applied(id=key[1], version=version, body=earlier.body)
        if (refused := self._refused.answer(key)) is not None:
            return Refused(refusal=refused)
        wallet = self._state.wallet_with_version_check(wallet_id)
        decision = decide_transfer(wallet, command, now=self._now, bounds=self._expiry_bounds)
        if isinstance(decision, Refusal):
            return decision
        return self._state.record(
            wallet, decision, made_by=request.api_key_id, key_digest=key_digest
        )

    def _decide_settlement(
        self, request: CommandRequest, command: SettleTransfer, key_digest: bytes
    ) -> ItemResult | Refusal:
        self._expire_if_due(request.wallet_id, command.transfer_id)
        wallet = self._state.wallet_with_version_check(request.wallet_id)
        transfer = self._state.transfer(request.wallet_id, command.transfer_id)
        if command.delivery_id is not None:
            refused = self._refused.answer((request.wallet_id, command.delivery_id))
            if refused is not None:
                return Refused(refusal=refused)
        assert transfer is None or not transfer.is_due(self._now), "INV-15 it has expired before"
        decision = decide_settlement(wallet, transfer, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        assert wallet is not None, "what was settled has a wallet"
        if isinstance(decision, Transfer):
            self.write.confirm = True
            body = encode_transfer(decision, wallet, self._refunded_by(wallet, decision))
            return Applied(id=decision.id, version=wallet.version, body=body)
        self._refused.apply(request.wallet_id, command)
        return self._state.record(
            wallet, decision, made_by=request.api_key_id, key_digest=key_digest
        )

    def _refunded_by(self, wallet: Wallet, refund: Transfer) -> Refunded | None:
        if refund.refunds is None:
            return None
        original = self._state.transfer(wallet.id, refund.refunds)
        return original.refunded if original is not None else None

    def _decide_refund(
        self, request: CommandRequest, command: RefundTransfer, key_digest: bytes
    ) -> ItemResult | Refusal:
        # Its deliveries are recognised by the key that it always has, or the batch's.
        self._expire_if_due(request.wallet_id, command.refunds)
        wallet = self._state.wallet_with_version_check(request.wallet_id)
        original = self._state.transfer(request.wallet_id, command.refunds)
        decision = decide_refund(
            wallet, original, command, now=self._now, bounds=self._expiry_bounds
        )
        if isinstance(decision, Refusal):
            return decision
        return self._state.record(
            wallet, decision, made_by=request.api_key_id, key_digest=key_digest
        )

    def _decide_expiry(self, wallet_id: WalletId, command: ExpireTransfer) -> Applied:
        """Whatever became of the transfer meanwhile, nobody waits for more than the wallet."""
        self._expire_if_due(wallet_id, command.transfer_id)
        wallet = self._state.wallet_with_version_check(wallet_id)
        return Applied(
            id=command.transfer_id, version=wallet.version if wallet is not None else 0, body=b"{}"
        )

    def _expire_if_due(self, wallet_id: WalletId, transfer_id: TransferId) -> None:
        """Settle the transfer if it is pending and its time has come. (INV-15)

        Nobody asked for it: the event has neither a key nor an API key.
        """
        transfer = self._state.transfer(wallet_id, transfer_id)
        if transfer is None or not transfer.is_due(self._now):
            return
        wallet = self._state.wallet_with_version_check(wallet_id)
        assert wallet is not None, "a transfer belongs to a wallet"
        self._state.record(wallet, decide_expiry(wallet, transfer, now=self._now))

    def _decide_control(
        self, request: CommandRequest, command: ControlWallet, key_digest: bytes
    ) -> Applied | Refusal:
        wallet = self._state.wallet_with_version_check(request.wallet_id)
        decision = decide_control(wallet, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        if isinstance(decision, Wallet):
            self.write.confirm = True
            body = ENCODER.encode(changed_view(decision, None))
            return Applied(id=decision.id, version=decision.version, body=body)
        return self._state.record(
            wallet, decision, made_by=request.api_key_id, key_digest=key_digest
        )

    def _decide_creation(
        self, request: CommandRequest, command: CreateWallet, key_digest: bytes
    ) -> Applied | Refusal:
        wallet_id = command.wallet_id
        earlier = self._loaded.wallets.get(wallet_id) or self.write.wallets.get(wallet_id)
        if earlier is not None:
            self.write.confirm |= wallet_id in self._loaded.wallets
            # Of the command, which is the same: the wallet may have changed since.
            opened = decide_creation(command, reference_taken=False, now=earlier.created_at)
            assert not isinstance(opened, Refusal), "what was opened is valid"
            created = evolve(None, opened)
            body = ENCODER.encode(wallet_view(created))
            return Applied(id=wallet_id, version=created.version, body=body)
        reference_id = command.reference_id
        decision = decide_creation(
            command, reference_taken=reference_id in self._references, now=self._now
        )
        if isinstance(decision, Refusal):
            return decision
        if reference_id is not None:
            self._references[reference_id] = wallet_id
        self.write.created_wallets.append(wallet_id)
        return self._state.record(None, decision, made_by=request.api_key_id, key_digest=key_digest)

    def _refuse(self, request: CommandRequest, refusal: Refusal) -> Refused:
        self.refusals.append(refusal.code)
        # The refusal depends on what was read, which can be lost in a failover until a synchronous
        # standby has it. The first delivery would then be decided on another state.
        self.write.confirm |= self._may_be_applied_yet(request)
        return Refused(refusal=msgspec.structs.replace(refusal, request_id=request.request_id))
