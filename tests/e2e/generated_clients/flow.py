"""One flow with the client that openapi-python-client makes of /openapi.json."""

import sys

from wallet_client import Client
from wallet_client.api.transfers import (
    complete_transfer,
    credit_wallet,
    debit_wallet,
    list_transfers,
    wallet_batch,
)
from wallet_client.api.wallets import create_wallet
from wallet_client.models import (
    BatchTransfer,
    CreateTransfer,
    CreateWallet,
    NewTransferStatus,
    Problem,
    SettleTransfer,
    TransferPage,
    TransferType,
    Wallet,
    WalletBatch,
    WalletBatchResults,
    WrittenTransfer,
)
from wallet_client.types import UNSET, Unset

COMPLETED = NewTransferStatus.COMPLETED

client = Client(base_url=sys.argv[1])

wallet = create_wallet.sync(client=client, body=CreateWallet())
assert isinstance(wallet, Wallet)
print(f"created: {wallet.currency} {wallet.status} {wallet.balance}")

debit = debit_wallet.sync(
    wallet.id, client=client, body=CreateTransfer(amount="10.50", status=COMPLETED)
)
assert isinstance(debit, WrittenTransfer)
print(f"debited: {debit.amount} {debit.status}, balance {debit.wallet.balance}")

body, key = CreateTransfer(amount="4.00"), f"hold-{wallet.id}"
hold = credit_wallet.sync(wallet.id, client=client, body=body, idempotency_key=key)
again = credit_wallet.sync_detailed(wallet.id, client=client, body=body, idempotency_key=key)
assert isinstance(hold, WrittenTransfer)
assert again.parsed == hold, "a replay is the first response"
print(f"held: {hold.amount} {hold.status}, replayed {again.headers['Idempotency-Replayed']}")

completed = complete_transfer.sync(wallet.id, hold.id, client=client, body=SettleTransfer())
assert isinstance(completed, WrittenTransfer)
print(f"completed: {completed.status}, balance {completed.wallet.balance}")

types: list[TransferType] = []
cursor: str | Unset | None = UNSET
while cursor is not None:
    page = list_transfers.sync(
        wallet.id, client=client, limit=1, cursor=cursor, min_version=completed.wallet.version
    )
    assert isinstance(page, TransferPage)
    types += [transfer.type_ for transfer in page.items]
    cursor = page.next_cursor
print(f"listed: {' '.join(types)}")

refused = credit_wallet.sync(
    wallet.id, client=client, body=CreateTransfer(amount="100", status=COMPLETED)
)
assert isinstance(refused, Problem)
print(f"refused: {refused.status} {refused.code}")

batch = wallet_batch.sync(
    wallet.id,
    client=client,
    body=WalletBatch(
        items=[
            BatchTransfer(type_=TransferType.DEBIT, amount="1.00", status=COMPLETED),
            BatchTransfer(type_=TransferType.CREDIT, amount="100"),
        ]
    ),
)
assert isinstance(batch, WalletBatchResults)
assert batch.wallet is not None
results: list[str] = []
for item in batch.items:
    if not isinstance(item.transfer, Unset):
        results.append(item.transfer.status)
    elif not isinstance(item.problem, Unset):
        results.append(item.problem.code)
print(f"batch: {' '.join(results)}, balance {batch.wallet.balance}")
