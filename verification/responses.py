"""What an answer told the client: the JSON of a wallet or of a transfer, as numbers."""

import msgspec

from verification.facts import Balances
from verification.reference_model import minor_units


class _Sums(msgspec.Struct):
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
    wallet: _Sums


class _Wallet(_Sums):
    id: str


class ReportedState(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer said. ``transfer_id`` is empty for a wallet."""

    wallet_id: str
    version: int
    sums: Balances
    transfer_id: str = ""
    type: str = ""
    status: str = ""
    amount: int = 0


def parse_transfer(body: str) -> ReportedState:
    """An answer to a debit, a credit or a settlement.

    Raises:
        msgspec.MsgspecError: it is no such answer.
    """
    answer = msgspec.json.decode(body, type=_Transfer)
    return ReportedState(
        wallet_id=answer.wallet_id,
        version=answer.wallet.version,
        sums=_sums(answer.wallet),
        transfer_id=answer.id,
        type=answer.type,
        status=answer.status,
        amount=minor_units(answer.amount),
    )


def parse_wallet(body: str) -> ReportedState:
    """An answer to a creation of a wallet, or to a read of one.

    Raises:
        msgspec.MsgspecError: it is no such answer.
    """
    answer = msgspec.json.decode(body, type=_Wallet)
    return ReportedState(wallet_id=answer.id, version=answer.version, sums=_sums(answer))


def _sums(answer: _Sums) -> Balances:
    return Balances(
        balance=minor_units(answer.balance),
        pending_debit=minor_units(answer.pending_debit),
        pending_credit=minor_units(answer.pending_credit),
    )
