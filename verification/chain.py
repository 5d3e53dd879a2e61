"""The hash chain, computed without the service's code: the content of an event, and its hash.

A hash is BLAKE2b with 128 bits and the person ``wallet event`` over the hash before it and the
event's content: JSON of its facts in a fixed order, amounts in minor units as text, without what is
null or empty. Events that were recorded before the chain have no hash of their own; the hash of
their wallet covers them.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from verification.facts import JournalEvent
from verification.violations import Violation, ViolationKind

GENESIS: Final = bytes(16)
"""The hash before a wallet's first event."""

_json = msgspec.json.Encoder()


class EventChain(msgspec.Struct, frozen=True, kw_only=True):
    """An event's place in the chain. Empty: recorded before the chain; no idempotency key."""

    hash: bytes = b""
    previous_hash: bytes = b""
    key_digest: bytes = b""


class ContentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an event's content has besides the fields of a `JournalEvent`."""

    occurred_at: datetime
    created_at: datetime | None = None
    """Of a settled transfer."""
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    currency: str | None = None
    """Of a new wallet, as is ``scale``."""
    scale: int | None = None
    rewound: "Rewound | None" = None
    reason: str | None = None
    """Of a wallet's change."""


class Rewound(msgspec.Struct, frozen=True):
    """What a `wallet.rewound` says."""

    common_version: int
    common_hash: str
    lost: tuple[str, ...]


class Head(msgspec.Struct, frozen=True):
    """A wallet's last version, or an earlier one, and the hash there."""

    version: int
    hash: bytes


class _Content(msgspec.Struct, omit_defaults=True):
    """The content's fields, in its order. What is at its default is left out."""

    wallet: str
    version: int
    type: str
    time: datetime
    balance: str
    pending_debit: str
    pending_credit: str
    currency: str | None = None
    scale: int | None = None
    transfer: str = ""
    transfer_type: str = ""
    previous_status: str = ""
    amount: str = ""
    created_at: datetime | None = None
    failure_reason: str = ""
    reference_id: str | None = None
    metadata: Mapping[str, str] = {}
    key_digest: str = ""
    common_version: int | None = None
    common_hash: str | None = None
    lost: tuple[str, ...] = ()
    status: str = ""
    frozen: str = ""
    frozen_reason: str = ""
    overdraft_limit: str = ""
    reason: str | None = None
    expires_at: datetime | None = None
    on_expiry: str = ""
    completed_amount: str = ""
    refunds: str = ""
    refunded_amount: str = ""
    refund_pending_amount: str = ""


def content_of(event: JournalEvent, facts: ContentFacts, chain: EventChain) -> bytes:
    """The bytes of an event that its hash covers."""
    moves = bool(event.transfer_id)
    creates = event.type == "wallet.created"
    rewound = facts.rewound
    after = event.after
    control = event.control
    changes = control if control is not None and not creates else None
    return _json.encode(
        _Content(
            event.wallet_id,
            event.version,
            event.type,
            facts.occurred_at,
            str(after.balance),
            str(after.pending_debit),
            str(after.pending_credit),
            facts.currency if creates else None,
            facts.scale if creates else None,
            event.transfer_id,
            event.transfer_type,
            event.previous_status,
            str(event.amount) if moves else "",
            facts.created_at if event.previous_status else None,
            event.failure_reason,
            None if rewound else facts.reference_id,
            {} if rewound else facts.metadata,
            chain.key_digest.hex(),
            rewound.common_version if rewound else None,
            rewound.common_hash if rewound else None,
            rewound.lost if rewound else (),
            changes.status if changes else "",
            changes.frozen if changes else "",
            changes.frozen_reason if changes else "",
            str(control.overdraft_limit) if control and control.overdraft_limit else "",
            facts.reason,
            event.expires_at,
            event.on_expiry,
            str(event.part) if event.part else "",
            event.refunds,
            str(event.refunded.completed) if event.refunded else "",
            str(event.refunded.pending) if event.refunded else "",
        )
    )


def link(previous: bytes, content: bytes) -> bytes:
    """The hash of the event with ``content`` after the event with the hash ``previous``."""
    return blake2b(previous + content, digest_size=16, person=b"wallet event").digest()


def key_digest(scope: str, key: str) -> bytes:
    """Identifies an idempotency key: the first half of the digest in an event."""
    return blake2b(f"{scope}\0{key}".encode(), digest_size=16, person=b"wallet key").digest()


class ChainReplay:
    """One wallet's chain, event by event in version order."""

    __slots__ = ("_expected", "hash", "version", "wallet_id")

    def __init__(
        self, wallet_id: str, expected: Mapping[ViolationKind, Head | None] | None = None
    ) -> None:
        """``expected``: hashes that others state for versions of this wallet, each with the
        violation that it is if the chain has another hash there, or never gets there."""
        self.wallet_id = wallet_id
        self.version = 0
        self.hash = GENESIS
        self._expected = {kind: head for kind, head in (expected or {}).items() if head is not None}

    def add(
        self, event: JournalEvent, facts: ContentFacts, chain: EventChain
    ) -> Iterator[Violation]:
        """Check the next event; then continue from its hash, to report each violation once."""
        content = content_of(event, facts, chain)
        if not chain.previous_hash:
            self.hash = link(self.hash, content)
        else:
            if chain.previous_hash != self.hash:
                yield self._violation(
                    ViolationKind.CHAIN_BROKEN,
                    event.version,
                    f"follows {chain.previous_hash.hex()}, the one before is {self.hash.hex()}",
                )
            computed = link(chain.previous_hash, content)
            if chain.hash != computed:
                yield self._violation(
                    ViolationKind.EVENT_HASH_WRONG,
                    event.version,
                    f"{chain.hash.hex()}, of its content {computed.hex()}",
                )
            self.hash = chain.hash
        self.version = event.version
        if self._expected:
            yield from self._compare()

    def end(self) -> Iterator[Violation]:
        """After the last event: versions that the journal does not have."""
        for kind, head in self._expected.items():
            yield self._violation(kind, head.version, f"the journal ends at {self.version}")
        self._expected = {}

    def _compare(self) -> Iterator[Violation]:
        for kind, head in [*self._expected.items()]:
            if head.version != self.version:
                continue
            del self._expected[kind]
            if head.hash != self.hash:
                yield self._violation(
                    kind, head.version, f"{head.hash.hex()}, journal {self.hash.hex()}"
                )

    def _violation(self, kind: ViolationKind, version: int, what: str) -> Violation:
        return Violation(kind=kind, wallet_id=self.wallet_id, detail=f"version={version} {what}")
