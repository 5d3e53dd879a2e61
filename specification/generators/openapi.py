"""Generates the OpenAPI document and the event schemas from the code.

They are committed in ``specification/``, so that clients can read them without running anything and
a change of the contract is visible in review. A test fails when they differ from the code.

    wallet specification [FOLDER]
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from serve_app.app import create_app
from serve_app.openapi import version_3_0
from wallet.event_codec import SOURCE, CloudEvent
from wallet.events import WALLET_CHANGES, EventType
from wallet.representation import (
    TransferResultView,
    WalletChangedView,
    WalletRewoundView,
    WalletView,
)
from wallet.state import (
    FailureReason,
    FreezeDirection,
    TransferStatus,
    TransferType,
    WalletStatus,
)

FOLDER: Final = Path(__file__).parents[1]

Json = dict[str, Any]

_EVENT_DESCRIPTIONS: Final = {
    EventType.WALLET_CREATED: "A wallet was created, with a balance of 0.",
    EventType.TRANSFER_PENDING: "A transfer was created as pending: a debit announces money INTO "
    "the wallet, a credit holds money to go OUT of it.",
    EventType.TRANSFER_COMPLETED: "A transfer was completed: a debit put money INTO the wallet, a "
    "credit took it OUT. It was created as completed, or was pending before (previousstatus).",
    EventType.TRANSFER_FAILED: "A pending transfer failed: a credit's hold is back in the balance, "
    "a debit never arrives.",
    EventType.TRANSFER_PARTIALLY_COMPLETED: "A part of a pending transfer was completed; the rest "
    "is still pending. `completed_amount` is what has been completed so far, `pending_amount` what "
    "is left.",
    EventType.WALLET_REWOUND: "The database had lost the wallet's latest events. Those in `lost` "
    "are gone: undo what you did for them, and go on after `common_version`. What is applied again "
    "follows as new events.",
    EventType.WALLET_UPDATED: "A wallet's metadata or overdraft limit was changed. `data` is the "
    "wallet after it.",
    EventType.WALLET_FROZEN: "A wallet was frozen, or its direction or reason was changed. In the "
    "direction `frozen` no transfers are created or completed.",
    EventType.WALLET_UNFROZEN: "A frozen wallet takes transfers again.",
    EventType.WALLET_CLOSED: "An empty wallet was closed for ever: this is its last event.",
}

_STATUS_AFTER: Final = {
    EventType.TRANSFER_PENDING: TransferStatus.PENDING,
    EventType.TRANSFER_COMPLETED: TransferStatus.COMPLETED,
    EventType.TRANSFER_FAILED: TransferStatus.FAILED,
    EventType.TRANSFER_PARTIALLY_COMPLETED: TransferStatus.PENDING,
}

_DATA: Final = {
    EventType.WALLET_CREATED: WalletView,
    EventType.WALLET_REWOUND: WalletRewoundView,
    **dict.fromkeys(WALLET_CHANGES, WalletChangedView),
}
"""The views of events that are not about a transfer."""

_AMOUNT: Final[Json] = {"type": "string", "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]{1,18})?$"}
_UUID: Final[Json] = {"type": "string", "format": "uuid"}
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_HASH: Final[Json] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}


def documents() -> dict[str, str]:
    """The content of every document, by its path in the specification folder."""
    openapi = create_app().openapi()
    generated: dict[str, Json] = {
        "openapi.json": openapi,
        "openapi-3.0.json": version_3_0.rendered(openapi),
    }
    for event in EventType:
        generated[f"events/{event}.json"] = event_schema(event)
    return {path: _text(document) for path, document in generated.items()}


def event_schema(event: EventType) -> Json:
    """The JSON Schema of one event type, with envelope and data."""
    transfers = event in _STATUS_AFTER
    view = _DATA.get(event, TransferResultView)
    _, definitions = msgspec.json.schema_components([CloudEvent, view])
    envelope = definitions["CloudEvent"]
    data = definitions[view.__name__]
    _refine(data["properties"])
    envelope["properties"] |= {
        "specversion": {"const": "1.0"},
        "id": {
            "type": "string",
            "description": "Opaque: the same event always has the same id, another event never has "
            "it. Also the message's Nats-Msg-Id.",
        },
        "source": {"const": SOURCE},
        "type": {"const": str(event)},
        "time": _INSTANT,
        "subject": {**_UUID, "description": "Id of the wallet."},
        "datacontenttype": {"const": "application/json"},
        "walletversion": {
            "type": "integer",
            "minimum": 1,
            "description": "The wallet's version after the event. Contiguous per wallet.",
        },
        "hash": {
            **_HASH,
            "description": "Identifies the event and all events of the wallet before it. Absent "
            "from events that were recorded before there were hashes.",
        },
        "previoushash": {
            **_HASH,
            "description": "Hash of the wallet's event before this one; zeros before the first. If "
            "it is not the one that a consumer has, the database lost what the consumer has.",
        },
        "keydigest": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "Digest of the idempotency key and the body of the request, if it had a "
            "key.",
        },
        "data": data,
    }
    if transfers:
        data["properties"]["status"] = {"const": str(_STATUS_AFTER[event])}
        balances = definitions["BalancesView"]
        _refine(balances["properties"])
        data["properties"]["wallet"] = balances
        data["properties"]["refunded_transfer"] = definitions["RefundedView"]
        envelope["properties"]["previousstatus"] = {
            "const": str(TransferStatus.PENDING),
            "description": "The transfer's previous status. Absent if the event created it.",
        }
    else:
        del envelope["properties"]["previousstatus"]
    envelope["required"] = [*envelope["required"], "specversion", "source", "datacontenttype"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **envelope,
        "title": str(event),
        "description": _EVENT_DESCRIPTIONS[event],
    }


def _refine(properties: Json) -> None:
    """Add constraints of a view's fields that their Python types don't express."""
    known: dict[str, Json] = {
        "id": _UUID,
        "wallet_id": _UUID,
        "type": {"enum": [str(member) for member in TransferType]},
        "status": {"enum": [str(member) for member in WalletStatus]},
        "frozen": {"enum": [*(str(member) for member in FreezeDirection), None]},
        "overdraft_limit": _AMOUNT,
        "failure_reason": {"enum": [*(str(member) for member in FailureReason), None]},
        "amount": _AMOUNT,
        "balance": _AMOUNT,
        "pending_credit": _AMOUNT,
        "pending_debit": _AMOUNT,
        "refunds": _UUID | {"description": "Of a refund: id of the transfer that it refunds."},
        "version": {"type": "integer", "minimum": 1},
        "created_at": _INSTANT,
        "updated_at": _INSTANT,
        "settled_at": {"anyOf": [_INSTANT, {"type": "null"}]},
    }
    properties |= {name: known[name] for name in properties if name in known}


def outdated(folder: Path = FOLDER) -> list[str]:
    """Paths of documents in ``folder`` that are missing or differ from the code."""
    return [
        path
        for path, text in documents().items()
        if not (folder / path).exists() or (folder / path).read_text(encoding="utf-8") != text
    ]


def write(folder: Path = FOLDER) -> list[str]:
    """Write every outdated document; returns their paths."""
    generated = documents()
    changed = outdated(folder)
    for path in changed:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(generated[path], encoding="utf-8")
    return changed


def _text(document: Json) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
