"""Decides a batch: command requests in, one transaction and the replies out. Pure functions.

Nothing here waits or keeps state between batches. A batch is decided on the cache and on what was
loaded for it, in order, each command on the state that the previous one left. If the transaction
is rejected, the decisions are discarded.
"""

from datetime import datetime

import msgspec

from actors.journal.ports import CommitRequest, LoadedState, StoredAnswer
from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    ItemResult,
    KeyClaimed,
    Refused,
    RequestResult,
)
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
from wallet.chain import record
from wallet.commands import (
    ClaimKey,
    Command,
    CommandItem,
    CommandRequest,
    ControlWallet,
    CreateTransfer,
    CreateWallet,
    Idempotency,
    SettleTransfer,
)
from wallet.control_rules import decide_control
from wallet.events import Event, RecordedEvent, TransferChanged
from wallet.fold import evolve
from wallet.ids import TransferId, WalletId
from wallet.refusals import Refusal, RefusalCode
from wallet.representation import (
    ENCODER,
    balances_view,
    changed_view,
    encode_transfer,
    wallet_view,
)
from wallet.rules import decide_creation, decide_settlement, decide_transfer
from wallet.state import Transfer, Wallet


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
    ) -> None:
        self._cache = cache
        self._loaded = loaded
        self._now = now
        self._maybe_applied = maybe_applied or outcome_unknown
        self._outcome_unknown = outcome_unknown
        self._keys = dict(loaded.keys)
        self._references = dict(loaded.references)
        self.transfers: dict[tuple[WalletId, TransferId], Transfer] = dict(loaded.transfers)
        """Transfers as the batch leaves them, loaded ones included."""
        self._created_transfers: dict[tuple[WalletId, TransferId], RecordedEvent] = {}
        """Transfers that this batch creates: a batch may contain two deliveries of one command."""
        self._previous_transfers: list[Transfer | None] = []
        """What each recorded event replaced in ``transfers``."""
        self.replays = 0
        self.refusals: list[RefusalCode] = []
        self.write = CommitRequest(
            now=now,
            expected_versions={},
            expected_hashes={},
            wallets={},
            created_wallets=[],
            events=[],
        )
        self._refused = RefusedDeliveries(loaded, self.write)

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
        before = self._wallet(request.wallet_id)
        recorded, keys = len(self.write.events), len(self.write.stored_answers)
        digest = digest_of(request, request.idempotency)
        results: list[ItemResult] = []
        for index, item in enumerate(request.items):
            result = self._decide_item(request, item, digest)
            if isinstance(result, Refused) and request.atomic:
                self._roll_back(request.wallet_id, before, recorded=recorded, keys=keys)
                self._refused.undo(request)
                if request.idempotency is None and self._may_be_applied_yet(request):
                    self._refused.refuse(request, item.command, result.refusal)
                return BatchRolledBack(index=index, refusal=result.refusal)
            results.append(result)
        wallet = self._wallet_with_version_check(request.wallet_id)
        if wallet is None:
            return BatchCommitted(items=tuple(results))
        return BatchCommitted(items=tuple(results), wallet=ENCODER.encode(balances_view(wallet)))

    def _roll_back(
        self, wallet_id: WalletId, before: Wallet | None, *, recorded: int, keys: int
    ) -> None:
        """Roll back to ``recorded`` events and ``keys`` stored answers."""
        if before is not None and wallet_id in self.write.wallets:
            self.write.wallets[wallet_id] = before
        while len(self.write.events) > recorded:
            event = self.write.events.pop().event
            self._restore_transfer(wallet_id, event, self._previous_transfers.pop())
        while len(self.write.stored_answers) > keys:
            key, _ = self.write.stored_answers.popitem()
            del self._keys[key]

    def _restore_transfer(
        self, wallet_id: WalletId, event: Event, overwritten: Transfer | None
    ) -> None:
        if not isinstance(event, TransferChanged):
            return
        if event.previous is None:
            del self._created_transfers[wallet_id, event.transfer.id]
        if overwritten is None:
            del self.transfers[wallet_id, event.transfer.id]
        else:
            self.transfers[wallet_id, event.transfer.id] = overwritten

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
        elif isinstance(command, CreateWallet):
            decision = self._decide_creation(request, command, key_digest)
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
        earlier = self._loaded.created_transfers.get(key) or self._created_transfers.get(key)
        if earlier is not None:
            # INV-7: a transfer id is applied once, however often it is delivered.
            self.write.confirm |= key in self._loaded.created_transfers
            version = earlier.wallet_after.version
            return Applied(id=key[1], version=version, body=earlier.body)
        if (refused := self._refused.answer(key)) is not None:
            return Refused(refusal=refused)
        wallet = self._wallet_with_version_check(wallet_id)
        decision = decide_transfer(wallet, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        return self._record(wallet, decision, request, key_digest)

    def _decide_settlement(
        self, request: CommandRequest, command: SettleTransfer, key_digest: bytes
    ) -> ItemResult | Refusal:
        wallet = self._wallet_with_version_check(request.wallet_id)
        transfer = self._transfer(request.wallet_id, command.transfer_id)
        if command.delivery_id is not None:
            refused = self._refused.answer((request.wallet_id, command.delivery_id))
            if refused is not None:
                return Refused(refusal=refused)
        decision = decide_settlement(wallet, transfer, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        assert wallet is not None, "what was settled has a wallet"
        if isinstance(decision, Transfer):
            self.write.confirm = True
            body = encode_transfer(decision, wallet)
            return Applied(id=decision.id, version=wallet.version, body=body)
        self._refused.apply(request.wallet_id, command)
        return self._record(wallet, decision, request, key_digest)

    def _decide_control(
        self, request: CommandRequest, command: ControlWallet, key_digest: bytes
    ) -> Applied | Refusal:
        wallet = self._wallet_with_version_check(request.wallet_id)
        decision = decide_control(wallet, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        if isinstance(decision, Wallet):
            self.write.confirm = True
            body = ENCODER.encode(changed_view(decision, None))
            return Applied(id=decision.id, version=decision.version, body=body)
        return self._record(wallet, decision, request, key_digest)

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
        return self._record(None, decision, request, key_digest)

    # -- the state after the commands decided so far ---------------------------------------

    def _wallet(self, wallet_id: WalletId) -> Wallet | None:
        wallet = self.write.wallets.get(wallet_id)
        if wallet is not None:
            return wallet
        active = self._cache.get(wallet_id)
        return active.state if active is not None else self._loaded.wallets.get(wallet_id)

    def _wallet_with_version_check(self, wallet_id: WalletId) -> Wallet | None:
        """The wallet; the transaction will check that it still has this version (INV-5)."""
        wallet = self._wallet(wallet_id)
        if wallet is not None and wallet_id not in self.write.wallets:
            self.write.expected_versions[wallet_id] = wallet.version
            self.write.expected_hashes[wallet_id] = wallet.hash
            self.write.wallets[wallet_id] = wallet
        return wallet

    def _transfer(self, wallet_id: WalletId, transfer_id: TransferId) -> Transfer | None:
        transfer = self.transfers.get((wallet_id, transfer_id))
        if transfer is not None:
            return transfer
        active = self._cache.get(wallet_id)
        return active.pending.get(transfer_id) if active is not None else None

    def _record(
        self,
        wallet: Wallet | None,
        event: Event,
        request: CommandRequest,
        key_digest: bytes,
    ) -> Applied:
        recorded = record(wallet, event, made_by=request.api_key_id, key_digest=key_digest)
        after = recorded.wallet_after
        self.write.wallets[after.id] = after
        self.write.events.append(recorded)
        made: TransferId | WalletId = after.id
        if isinstance(event, TransferChanged):
            made = event.transfer.id
            key = (after.id, made)
            self._previous_transfers.append(self.transfers.get(key))
            self.transfers[key] = event.transfer
            if event.previous is None:
                self._created_transfers[key] = recorded
        else:
            self._previous_transfers.append(None)
        return Applied(id=made, version=after.version, body=recorded.body)

    def _refuse(self, request: CommandRequest, refusal: Refusal) -> Refused:
        self.refusals.append(refusal.code)
        # The refusal depends on what was read, which can be lost in a failover until a synchronous
        # standby has it. The first delivery would then be decided on another state.
        self.write.confirm |= self._may_be_applied_yet(request)
        return Refused(refusal=msgspec.structs.replace(refusal, request_id=request.request_id))
