"""Responses to clients: the JSON of a wallet or of a transfer, as numbers."""

import msgspec

from verification.facts import Balances
from verification.reference_model import minor_units


class _Balances(msgspec.Struct):
    version: int
    balance: str
    pending_debit: str
    pending_credit: str


class _Transfer(msgspec.Struct):
    id: str
    wallet_id: str
    type: str
    status: str
    amount: str
    wallet: _Balances
    completed_amount: str = "0"
    refunds: str = ""


class _Wallet(_Balances):
    id: str


class ReportedState(msgspec.Struct, frozen=True, kw_only=True):
    """The state in a response. ``transfer_id`` is empty for a wallet."""

    wallet_id: str
    version: int
    balances: Balances
    transfer_id: str = ""
    type: str = ""
    status: str = ""
    amount: int = 0
    part: int = 0
    """What was completed of it, if not all."""
    refunds: str = ""


def parse_transfer(body: str) -> ReportedState:
    """Parse the response to a debit, a credit or a settlement.

    Raises:
        msgspec.MsgspecError: it is not such a response.
    """
    response = msgspec.json.decode(body, type=_Transfer)
    return ReportedState(
        wallet_id=response.wallet_id,
        version=response.wallet.version,
        balances=_balances(response.wallet),
        transfer_id=response.id,
        type=response.type,
        status=response.status,
        amount=minor_units(response.amount),
        part=minor_units(response.completed_amount),
        refunds=response.refunds,
    )


def parse_wallet(body: str) -> ReportedState:
    """Parse the response to a wallet creation or a wallet read.

    Raises:
        msgspec.MsgspecError: it is not such a response.
    """
    response = msgspec.json.decode(body, type=_Wallet)
    return ReportedState(
        wallet_id=response.id, version=response.version, balances=_balances(response)
    )


def _balances(response: _Balances) -> Balances:
    return Balances(
        balance=minor_units(response.balance),
        pending_debit=minor_units(response.pending_debit),
        pending_credit=minor_units(response.pending_credit),
    )
