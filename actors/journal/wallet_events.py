"""Events of a wallet itself, in the column ``metadata`` of their journal rows.

An event says what the wallet was like after it: its status, its limit, its metadata. All of that
may change later, so it is stored with the event, and `wallet_changes` has it by version.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from wallet.events import EventType, WalletChanged, WalletCreated, WalletRewound
from wallet.state import Freeze, FreezeDirection, Wallet, WalletStatus

WalletEvent = WalletCreated | WalletChanged | WalletRewound


class _State(msgspec.Struct, omit_defaults=True):
    """A wallet after an event, except for its balances."""

    status: str = "active"
    frozen: str | None = None
    frozen_reason: str | None = None
    overdraft_limit: str = "0"
    """Minor units."""
    metadata: Mapping[str, str] = {}


class _Changed(_State, omit_defaults=True):
    reason: str | None = None


class _Rewound(msgspec.Struct, omit_defaults=True):
    common_version: int
    common_hash: str
    lost: tuple[str, ...] = ()
    state: _State | None = None
    """None: recorded before a wallet's state could change."""


_encoder: Final = msgspec.json.Encoder()
_changed: Final = msgspec.json.Decoder(_Changed)
_rewound: Final = msgspec.json.Decoder(_Rewound)


def encode_changed(event: WalletChanged, wallet: Wallet) -> str:
    """The details of ``event``: what `wallet_changes` has, too. ``wallet`` is the one after it."""
    details = _Changed(**msgspec.structs.asdict(_state_of(wallet)), reason=event.reason)
    return _encoder.encode(details).decode()


def encode_rewound(event: WalletRewound, wallet: Wallet) -> str:
    """The details of ``event``; ``wallet`` is the one after it."""
    state = _state_of(wallet)
    details = _Rewound(event.common_version, event.common_hash.hex(), event.lost, state)
    return _encoder.encode(details).decode()


def _state_of(wallet: Wallet) -> _State:
    return _State(
        status=wallet.status,
        frozen=wallet.frozen,
        frozen_reason=wallet.frozen_reason,
        overdraft_limit=str(wallet.overdraft_limit),
        metadata=wallet.metadata,
    )


def decode_wallet_event(
    type: str, details: str, wallet: Wallet
) -> tuple[WalletChanged | WalletRewound, Wallet]:
    """The event, and the wallet after it. ``wallet`` has what never changes, and its balances."""
    if type == EventType.WALLET_REWOUND:
        rewound = _rewound.decode(details)
        event = WalletRewound(
            wallet_id=wallet.id,
            common_version=rewound.common_version,
            common_hash=bytes.fromhex(rewound.common_hash),
            lost=rewound.lost,
            occurred_at=wallet.updated_at,
        )
        return event, wallet if rewound.state is None else _with_state(wallet, rewound.state)
    changed = _changed.decode(details)
    after = _with_state(wallet, changed)
    return (
        WalletChanged(
            type=EventType(type),
            wallet_id=wallet.id,
            status=after.status,
            freeze=after.freeze,
            overdraft_limit=after.overdraft_limit,
            metadata=after.metadata,
            reason=changed.reason,
            occurred_at=wallet.updated_at,
        ),
        after,
    )


def _with_state(wallet: Wallet, state: _State) -> Wallet:
    direction = state.frozen and FreezeDirection(state.frozen)
    return msgspec.structs.replace(
        wallet,
        status=WalletStatus(state.status),
        freeze=Freeze(direction, state.frozen_reason) if direction else None,
        overdraft_limit=int(state.overdraft_limit),
        metadata=state.metadata,
    )
