"""Stream messages as the checker reads them: CloudEvents, decoded without the service's code."""

import msgspec

from verification.facts import Balances, JournalEvent, StreamMessage
from verification.reference_model import minor_units


class _Balances(msgspec.Struct):
    balance: str = "0"
    pending_debit: str = "0"
    pending_credit: str = "0"


class _Data(_Balances):
    """A wallet, or a transfer with its wallet's balances."""

    id: str = ""
    type: str = ""
    amount: str = "0"
    reference_id: str | None = None
    failure_reason: str | None = None
    wallet: _Balances | None = None


class _Envelope(msgspec.Struct):
    id: str
    type: str
    subject: str
    walletversion: int
    data: _Data
    previousstatus: str = ""


_decoder = msgspec.json.Decoder(_Envelope)


def decode_message(sequence: int, message_id: str, subject: str, payload: bytes) -> StreamMessage:
    """Decode a stream message.

    Raises:
        msgspec.MsgspecError: the payload is not an event of the service.
    """
    envelope = _decoder.decode(payload)
    data = envelope.data
    balances = data.wallet or data
    moves = data.wallet is not None
    return StreamMessage(
        sequence=sequence,
        message_id=message_id,
        subject=subject,
        event=JournalEvent(
            wallet_id=envelope.subject,
            version=envelope.walletversion,
            type=envelope.type,
            after=Balances(
                balance=minor_units(balances.balance),
                pending_debit=minor_units(balances.pending_debit),
                pending_credit=minor_units(balances.pending_credit),
            ),
            transfer_id=data.id if moves else "",
            transfer_type=data.type if moves else "",
            previous_status=envelope.previousstatus,
            amount=minor_units(data.amount) if moves else 0,
            reference_id=data.reference_id or "",
            failure_reason=data.failure_reason or "",
        ),
    )
