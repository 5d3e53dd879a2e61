"""Idempotency keys: which results are stored under them, and which requests they belong to."""

from typing import Final

from actors.journal.ports import StoredAnswer
from actors.rpc.messages import BatchCommitted, BatchRolledBack, ItemResult, Refused
from actors.shard.stored_answers import request_fingerprint_from
from wallet.chain import KEY_DIGEST_BYTES, request_digest
from wallet.commands import CommandRequest, Idempotency
from wallet.refusals import STORED_UNDER_KEY, Refusal, RefusalCode

BATCH_RECOVERED: Final = Refusal(
    code=RefusalCode.IDEMPOTENCY_KEY_REUSED,
    detail="The database lost this batch's response. Its transfers were applied again under their "
    "own ids: list the wallet's transfers, and send what is missing with a new key.",
)

KEY_REUSED: Final = Refusal(
    code=RefusalCode.IDEMPOTENCY_KEY_REUSED,
    detail="This Idempotency-Key came with another request before. "
    "Send a new key for a new request.",
)


def digest_of(request: CommandRequest, idempotency: Idempotency | None) -> bytes:
    """The digest that events of ``request`` have of its key; empty: it has none."""
    return request_digest(request.wallet_id, idempotency) if idempotency is not None else b""


def binds_the_key(result: ItemResult) -> bool:
    """Whether ``result`` is stored under the command's idempotency key."""
    return not isinstance(result, Refused) or result.refusal.code in STORED_UNDER_KEY


def is_kept(result: BatchCommitted | BatchRolledBack, idempotency: Idempotency) -> bool:
    """Whether ``result`` is stored under the idempotency key of the whole batch."""
    if idempotency.is_part:
        return True  # The key is claimed: no other request can use it in any case.
    if isinstance(result, BatchRolledBack):
        # One decision: a conflict (409), unless the item wasn't valid.
        return result.refusal.code is not RefusalCode.VALIDATION_ERROR
    return any(binds_the_key(item) for item in result.items)


def is_same_request(idempotency: Idempotency, stored: StoredAnswer) -> bool:
    if stored.recovered:
        return stored.fingerprint == idempotency.fingerprint[:KEY_DIGEST_BYTES]
    if stored.fingerprint != idempotency.fingerprint:
        return False
    if not idempotency.request:
        return True
    # The items for this wallet are the same; the whole request may still differ.
    return request_fingerprint_from(stored) in (b"", idempotency.request)
