"""What a batch must read before it can be decided: everything is read first, then nothing waits."""

from collections.abc import Sequence

from actors.journal.ports import ReadSet
from actors.shard.cache import ActiveWallet, WalletCache
from wallet.commands import (
    ClaimKey,
    Command,
    CommandRequest,
    CreateTransfer,
    CreateWallet,
    ExpireTransfer,
    RefundTransfer,
    SettleTransfer,
)
from wallet.ids import TransferId, WalletId


def required_reads(
    requests: Sequence[CommandRequest], cache: WalletCache, *, maybe_applied: bool
) -> ReadSet:
    """What must be read before ``requests`` can be decided.

    ``maybe_applied``: an earlier attempt may have been applied, so what it creates must be read.
    """
    missing = ReadSet()
    for request in requests:
        delivered_before = maybe_applied or request.attempt > 1
        if request.idempotency is not None:
            missing.keys.add((request.wallet_id, request.idempotency.key))
        for item in request.items:
            if item.idempotency is not None:
                missing.keys.add((request.wallet_id, item.idempotency.key))
            _add_required_reads(
                missing, request.wallet_id, item.command, cache, maybe_applied=delivered_before
            )
    return missing


def _add_required_reads(
    missing: ReadSet,
    wallet_id: WalletId,
    command: Command,
    cache: WalletCache,
    *,
    maybe_applied: bool,
) -> None:
    if isinstance(command, CreateWallet):
        if command.reference_id is not None:
            missing.references.add(command.reference_id)
        if maybe_applied:
            missing.wallets.add(command.wallet_id)
        return
    if isinstance(command, ClaimKey):
        return
    active = cache.get(wallet_id)
    if active is None:
        missing.wallets.add(wallet_id)
    if isinstance(command, SettleTransfer | ExpireTransfer):
        _add_transfer(missing, wallet_id, command.transfer_id, active)
    elif isinstance(command, RefundTransfer):
        _add_transfer(missing, wallet_id, command.refunds, active)
    if maybe_applied and (decided_id := _decided_id(command)) is not None:
        missing.created_transfers.add((wallet_id, decided_id))


def _add_transfer(
    missing: ReadSet, wallet_id: WalletId, transfer_id: TransferId, active: ActiveWallet | None
) -> None:
    """A transfer, and the one that it refunds: the journal reads that of its own accord with a
    refund that isn't in the cache."""
    known = active.pending.get(transfer_id) if active is not None else None
    if known is None:
        missing.transfers.add((wallet_id, transfer_id))
    elif known.refunds is not None and active is not None and known.refunds not in active.pending:
        missing.transfers.add((wallet_id, known.refunds))


def _decided_id(command: Command) -> TransferId | None:
    """The id under which deliveries of ``command`` are recognised, if it has no key."""
    if isinstance(command, CreateTransfer):
        return command.transfer_id
    return command.delivery_id if isinstance(command, SettleTransfer) else None
