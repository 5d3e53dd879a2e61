"""Deciding a batch: submissions in, one transaction and the replies out. Pure.

Nothing here waits or remembers: a batch is decided on what the cache holds and what was loaded
for it, in order, each command on the state that the one before left. If the transaction is
then refused, all of this is simply thrown away.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from actors.journal.ports import (
    CommitRequest,
    IdempotencyRecord,
    LoadedState,
    ReadSet,
    RefusedDelivery,
    StoredAnswer,
    TransferKey,
)
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
from actors.shard.stored_answers import (
    batch_result_from,
    claim_from,
    encode_refusal,
    item_result_from,
    refusal_from,
    request_fingerprint_from,
    stored_answer,
)
from wallet.commands import (
    ClaimKey,
    Command,
    CommandItem,
    CommandRequest,
    CreateTransfer,
    CreateWallet,
    Idempotency,
    SettleTransfer,
)
from wallet.events import Event, RecordedEvent, TransferChanged, WalletCreated
from wallet.fold import evolve
from wallet.ids import TransferId, WalletId
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode
from wallet.representation import ENCODER, balances_view, encode_recorded, encode_transfer
from wallet.rules import decide_creation, decide_settlement, decide_transfer
from wallet.state import Transfer, Wallet


def required_reads(
    submissions: Sequence[CommandRequest], cache: WalletCache, *, redo: bool
) -> ReadSet:
    """What must be read before ``submissions`` can be decided.

    ``redo``: an earlier try may have been applied, so what it creates must be looked up.
    """
    missing = ReadSet()
    for submission in submissions:
        doubtful = redo or submission.attempt > 1
        if submission.idempotency is not None:
            missing.keys.add((submission.wallet_id, submission.idempotency.key))
        for item in submission.items:
            if item.idempotency is not None:
                missing.keys.add((submission.wallet_id, item.idempotency.key))
            _add_required_reads(
                missing, submission.wallet_id, item.command, cache, doubtful=doubtful
            )
    return missing


def _add_required_reads(
    missing: ReadSet, wallet_id: WalletId, command: Command, cache: WalletCache, *, doubtful: bool
) -> None:
    if isinstance(command, CreateWallet):
        if command.reference_id is not None:
            missing.references.add(command.reference_id)
        if doubtful:
            missing.wallets.add(command.wallet_id)
        return
    if isinstance(command, ClaimKey):
        return
    active = cache.get(wallet_id)
    if active is None:
        missing.wallets.add(wallet_id)
    if isinstance(command, CreateTransfer):
        if doubtful:
            missing.created_transfers.add((wallet_id, command.transfer_id))
    elif active is None or command.transfer_id not in active.pending:
        missing.transfers.add((wallet_id, command.transfer_id))


class BatchDecider:
    """A batch in the making. ``decide`` each submission in order, then take ``write``.

    ``redo``: an earlier try was refused whole, or its outcome is unknown. ``outcome_unknown``: it
    may still be applied, so what is refused now must be refused for good.
    """

    def __init__(
        self,
        *,
        cache: WalletCache,
        loaded: LoadedState,
        now: datetime,
        redo: bool = False,
        outcome_unknown: bool = False,
    ) -> None:
        self._cache = cache
        self._loaded = loaded
        self._now = now
        self._redo = redo or outcome_unknown
        self._outcome_unknown = outcome_unknown
        self._keys = dict(loaded.keys)
        self._references = dict(loaded.references)
        self.transfers: dict[tuple[WalletId, TransferId], Transfer] = dict(loaded.transfers)
        """Transfers as the batch leaves them, loaded ones included."""
        self.bodies: list[bytes] = []
        """The JSON of each recorded event, for the stream."""
        self._created_transfers: dict[tuple[WalletId, TransferId], RecordedEvent] = {}
        """Transfers that this batch creates: two deliveries of one command may share a batch."""
        self._refused: dict[TransferKey, bytes] = dict(loaded.refused)
        """Answers of transfers that were refused for good."""
        self._previous_transfers: list[Transfer | None] = []
        """What each recorded event replaced in ``transfers``."""
        self.replays = 0
        self.refusals: list[RefusalCode] = []
        self.write = CommitRequest(
            now=now,
            expected_versions={},
            wallets={},
            created_wallets=[],
            events=[],
            idempotency_records=[],
        )

    def decide(self, submission: CommandRequest) -> RequestResult:
        """The result of ``submission``, true once ``write`` is committed.

        Raises:
            JournalError: an answer that was kept can't be read.
        """
        if submission.is_batch:
            if submission.idempotency is None:
                return self._decide_batch(submission)
            return self._decide_idempotent_batch(submission, submission.idempotency)
        assert len(submission.items) == 1, "several items are a batch"
        (item,) = submission.items
        if isinstance(item.command, ClaimKey):
            assert item.idempotency is not None, "a key is claimed under itself"
            return self._claim_key(submission, item.idempotency)
        return self._decide_item(submission, item)

    # -- several items -----------------------------------------------------------------------

    def _decide_idempotent_batch(
        self, submission: CommandRequest, keyed: Idempotency
    ) -> Refused | BatchCommitted | BatchRolledBack:
        stored = self._find_stored(submission, keyed)
        if isinstance(stored, Refused):
            return stored
        if stored is not None:
            return batch_result_from(stored, replayed=self._is_replay(submission, stored))
        result = self._decide_batch(submission)
        # An item of the batch may have come with the same key.
        if _is_kept(result, keyed) and (submission.wallet_id, keyed.key) not in self._keys:
            self._store_under_key(submission, keyed, result)
        return result

    def _decide_batch(self, submission: CommandRequest) -> BatchCommitted | BatchRolledBack:
        before = self._wallet(submission.wallet_id)
        recorded, keys = len(self.write.events), len(self.write.idempotency_records)
        results: list[ItemResult] = []
        for index, item in enumerate(submission.items):
            result = self._decide_item(submission, item)
            if isinstance(result, Refused) and submission.atomic:
                self._roll_back(submission.wallet_id, before, recorded=recorded, keys=keys)
                if submission.idempotency is None:
                    self._refuse_for_good(submission, item.command, result.refusal)
                return BatchRolledBack(index=index, refusal=result.refusal)
            results.append(result)
        wallet = self._wallet_with_version_check(submission.wallet_id)
        if wallet is None:
            return BatchCommitted(items=tuple(results))
        return BatchCommitted(items=tuple(results), wallet=ENCODER.encode(balances_view(wallet)))

    def _roll_back(
        self, wallet_id: WalletId, before: Wallet | None, *, recorded: int, keys: int
    ) -> None:
        """Back to where the batch stood with ``recorded`` events and ``keys`` keys."""
        if before is not None and wallet_id in self.write.wallets:
            self.write.wallets[wallet_id] = before
        while len(self.write.events) > recorded:
            event = self.write.events.pop().event
            self.bodies.pop()
            self._restore_transfer(wallet_id, event, self._previous_transfers.pop())
        while len(self.write.idempotency_records) > keys:
            record = self.write.idempotency_records.pop()
            del self._keys[record.scope, record.idempotency.key]

    def _restore_transfer(
        self, wallet_id: WalletId, event: Event, overwritten: Transfer | None
    ) -> None:
        if isinstance(event, WalletCreated):
            return
        if event.previous is None:
            del self._created_transfers[wallet_id, event.transfer.id]
        if overwritten is None:
            del self.transfers[wallet_id, event.transfer.id]
        else:
            self.transfers[wallet_id, event.transfer.id] = overwritten

    # -- one item ----------------------------------------------------------------------------

    def _decide_item(self, submission: CommandRequest, item: CommandItem) -> ItemResult:
        if item.idempotency is None:
            result = self._decide_command(submission, item.command)
            if isinstance(result, Refused):
                self._refuse_for_good(submission, item.command, result.refusal)
            return result
        stored = self._find_stored(submission, item.idempotency)
        if isinstance(stored, Refused):
            return stored
        if stored is not None:
            return item_result_from(stored, replayed=self._is_replay(submission, stored))
        result = self._decide_command(submission, item.command)
        if _binds_the_key(result):
            self._store_under_key(submission, item.idempotency, result)
        return result

    def _refuse_for_good(
        self, submission: CommandRequest, command: Command, refusal: Refusal
    ) -> None:
        """See that an earlier delivery of a transfer refused now is never applied. (INV-7)

        A key does that by itself. So does a settlement: it is refused for what never changes, and
        whoever repeats it asks for nothing new.
        """
        if not self._may_be_applied_yet(submission) or refusal.code not in STORED_UNDER_KEY:
            return
        if not isinstance(command, CreateTransfer):
            return
        key = (submission.wallet_id, command.transfer_id)
        if key not in self._refused:
            answer = self._refused[key] = encode_refusal(refusal)
            self.write.refused.append(
                RefusedDelivery(wallet_id=key[0], transfer_id=key[1], answer=answer)
            )

    def _may_be_applied_yet(self, submission: CommandRequest) -> bool:
        """Whether an earlier delivery or try of ``submission`` may be on its way to the journal."""
        return self._outcome_unknown or submission.attempt > 1

    # -- keys --------------------------------------------------------------------------------

    def _find_stored(
        self, submission: CommandRequest, keyed: Idempotency
    ) -> StoredAnswer | Refused | None:
        """What is kept under the key; a refusal if that belongs to another request."""
        stored = self._keys.get((submission.wallet_id, keyed.key))
        if stored is None:
            return None
        # INV-6: one key, one request, one answer.
        if not _is_same_request(keyed, stored):
            return self._refuse(
                submission,
                Refusal(
                    code=RefusalCode.IDEMPOTENCY_KEY_REUSED,
                    detail="This Idempotency-Key came with another request before. "
                    "Send a new key for a new request.",
                ),
            )
        self.replays += 1
        self.write.confirm |= (submission.wallet_id, keyed.key) in self._loaded.keys
        return stored

    def _is_replay(self, submission: CommandRequest, stored: StoredAnswer) -> bool:
        """To the client: not if it is our second delivery, or second try, of its only request."""
        doubtful = self._redo or submission.attempt > 1
        return not doubtful or stored.request_id != submission.request_id

    def _claim_key(self, submission: CommandRequest, keyed: Idempotency) -> KeyClaimed | Refused:
        stored = self._find_stored(submission, keyed)
        if isinstance(stored, Refused):
            return stored
        if stored is not None:
            return claim_from(stored, replayed=self._is_replay(submission, stored))
        claimed = KeyClaimed(request_id=submission.request_id)
        self._store_under_key(submission, keyed, claimed)
        return claimed

    def _store_under_key(
        self,
        submission: CommandRequest,
        keyed: Idempotency,
        result: ItemResult | KeyClaimed | BatchCommitted | BatchRolledBack,
    ) -> None:
        stored = stored_answer(result, keyed, submission.request_id)
        self._keys[submission.wallet_id, keyed.key] = stored
        self.write.idempotency_records.append(
            IdempotencyRecord(scope=submission.wallet_id, idempotency=keyed, stored=stored)
        )

    # -- one command -------------------------------------------------------------------------

    def _decide_command(self, submission: CommandRequest, command: Command) -> ItemResult:
        if isinstance(command, CreateTransfer):
            decision = self._decide_transfer(submission, command)
        elif isinstance(command, SettleTransfer):
            decision = self._decide_settlement(submission, command)
        elif isinstance(command, CreateWallet):
            decision = self._decide_creation(submission, command)
        else:
            assert not isinstance(command, ClaimKey), "a key is claimed alone"
            assert_never(command)
        if isinstance(decision, Refusal):
            return self._refuse(submission, decision)
        return decision

    def _decide_transfer(
        self, submission: CommandRequest, command: CreateTransfer
    ) -> ItemResult | Refusal:
        wallet_id = submission.wallet_id
        key = (wallet_id, command.transfer_id)
        earlier = self._loaded.created_transfers.get(key) or self._created_transfers.get(key)
        if earlier is not None:
            # INV-7: a transfer id is applied once, however often it is delivered.
            self.write.confirm |= key in self._loaded.created_transfers
            return _applied(key[1], earlier)
        if (refused := self._refused.get(key)) is not None:
            self.write.confirm |= key in self._loaded.refused
            return Refused(refusal=refusal_from(refused))
        wallet = self._wallet_with_version_check(wallet_id)
        decision = decide_transfer(wallet, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        return self._record(wallet, decision, submission)

    def _decide_settlement(
        self, submission: CommandRequest, command: SettleTransfer
    ) -> Applied | Refusal:
        wallet = self._wallet_with_version_check(submission.wallet_id)
        transfer = self._transfer(submission.wallet_id, command.transfer_id)
        decision = decide_settlement(wallet, transfer, command, now=self._now)
        if isinstance(decision, Refusal):
            return decision
        assert wallet is not None, "what was settled has a wallet"
        if isinstance(decision, Transfer):
            self.write.confirm = True
            body = encode_transfer(decision, wallet)
            return Applied(id=decision.id, version=wallet.version, body=body)
        return self._record(wallet, decision, submission)

    def _decide_creation(
        self, submission: CommandRequest, command: CreateWallet
    ) -> Applied | Refusal:
        wallet_id = command.wallet_id
        earlier = self._loaded.wallets.get(wallet_id) or self.write.wallets.get(wallet_id)
        if earlier is not None:
            created = _creation_event_from(earlier)
            self.write.confirm |= wallet_id in self._loaded.wallets
            return _applied(wallet_id, created)
        reference_id = command.reference_id
        decision = decide_creation(
            command, reference_taken=reference_id in self._references, now=self._now
        )
        if isinstance(decision, Refusal):
            return decision
        if reference_id is not None:
            self._references[reference_id] = wallet_id
        self.write.created_wallets.append(wallet_id)
        return self._record(None, decision, submission)

    # -- the state in the making -----------------------------------------------------------

    def _wallet(self, wallet_id: WalletId) -> Wallet | None:
        wallet = self.write.wallets.get(wallet_id)
        if wallet is not None:
            return wallet
        active = self._cache.get(wallet_id)
        return active.state if active is not None else self._loaded.wallets.get(wallet_id)

    def _wallet_with_version_check(self, wallet_id: WalletId) -> Wallet | None:
        """The wallet, with a promise that its version is checked by the transaction (INV-5)."""
        wallet = self._wallet(wallet_id)
        if wallet is not None and wallet_id not in self.write.wallets:
            self.write.expected_versions[wallet_id] = wallet.version
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
        submission: CommandRequest,
    ) -> Applied:
        after = evolve(wallet, event)
        recorded = RecordedEvent(event=event, wallet_after=after, made_by=submission.api_key_id)
        body = encode_recorded(recorded)
        self.write.wallets[after.id] = after
        self.write.events.append(recorded)
        self.bodies.append(body)
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
        return Applied(id=made, version=after.version, body=body)

    def _refuse(self, submission: CommandRequest, refusal: Refusal) -> Refused:
        self.refusals.append(refusal.code)
        # It rests on what was read, which may undo itself until a synchronous standby has it. For a
        # second delivery that matters: the first one would then be decided on something else.
        self.write.confirm |= self._may_be_applied_yet(submission)
        return Refused(
            refusal=Refusal(
                code=refusal.code,
                detail=refusal.detail,
                pointer=refusal.pointer,
                request_id=submission.request_id,
            )
        )


def _applied(made: str, recorded: RecordedEvent) -> Applied:
    """The result of what was ``recorded`` before; ``made`` is the id of what it made."""
    return Applied(id=made, version=recorded.wallet_after.version, body=encode_recorded(recorded))


def _binds_the_key(result: ItemResult) -> bool:
    """Whether ``result`` is kept under the key that its command came with."""
    return not isinstance(result, Refused) or result.refusal.code in STORED_UNDER_KEY


def _is_kept(result: BatchCommitted | BatchRolledBack, keyed: Idempotency) -> bool:
    """Whether ``result``, just decided, is kept under the key of the whole batch."""
    if keyed.is_part:
        return True  # The key was claimed: it can't be used for anything else in any case.
    if isinstance(result, BatchRolledBack):
        # One decision: a conflict (409), unless the item wasn't valid.
        return result.refusal.code is not RefusalCode.VALIDATION_ERROR
    return any(_binds_the_key(item) for item in result.items)


def _is_same_request(keyed: Idempotency, stored: StoredAnswer) -> bool:
    if stored.fingerprint != keyed.fingerprint:
        return False
    if not keyed.request:
        return True
    # Of the same items for this wallet: but in the same request?
    return request_fingerprint_from(stored) in (b"", keyed.request)


def _creation_event_from(wallet: Wallet) -> RecordedEvent:
    """The wallet's first event, from what never changes about a wallet."""
    event = WalletCreated(
        wallet_id=wallet.id,
        currency=wallet.currency,
        scale=wallet.scale,
        reference_id=wallet.reference_id,
        metadata=wallet.metadata,
        occurred_at=wallet.created_at,
    )
    return RecordedEvent(event=event, wallet_after=evolve(None, event))
