"""The service that most people would write: FastAPI, asyncpg, `SELECT … FOR UPDATE`.

One transaction per request, the wallet's row locked from read to commit, the same tables
and the same rows as ours: wallet, transfer, journal event, outbox. Written as well as we can:
four round trips (the four rows go in one statement), prepared statements, uvloop and httptools,
no access log, no reset of a connection that has nothing to reset.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal
from uuid import UUID

import asyncpg
import uuid_utils.compat
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from bench.baselines.statements import LOCK, WRITE
from deploy.local.scheduling_policy import use_batch_scheduling

_POOL = int(os.environ.get("BASELINE_POOL", "8"))


class TransferRequest(BaseModel):
    """The request body."""

    amount: Annotated[str, Field(pattern=r"^\d{1,30}\.\d{2}$")]
    status: Literal["pending", "completed"] = "pending"
    reference_id: Annotated[str, Field(max_length=255)] | None = None
    metadata: dict[str, str] = {}


class Balances(BaseModel):
    """The wallet after the transfer."""

    version: int
    balance: str


class TransferResponse(BaseModel):
    """The response body."""

    id: UUID
    wallet_id: UUID
    type: str
    status: str
    amount: str
    wallet: Balances


async def _keep_session(_connection: object) -> None:
    """Nothing to reset: a transaction leaves nothing behind, and resetting is a round trip."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    use_batch_scheduling()  # as our own processes do: it helps here, too
    url = os.environ["BASELINE_DATABASE_URL"]
    async with asyncpg.create_pool(
        url, min_size=_POOL, max_size=_POOL, reset=_keep_session, server_settings={"jit": "off"}
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Liveness."""
    return {"status": "ok"}


@app.post("/v1/wallet/{wallet_id}/transfers/{kind}", status_code=201)
async def create_transfer(
    wallet_id: UUID, kind: Literal["debit", "credit"], body: TransferRequest
) -> TransferResponse:
    """Lock the wallet, decide, write, commit."""
    amount = int(body.amount.replace(".", ""))
    pool: asyncpg.Pool = app.state.pool
    transfer_id = uuid_utils.compat.uuid7()
    async with pool.acquire() as connection, connection.transaction():
        wallet = await connection.fetchrow(LOCK, wallet_id)
        if wallet is None:
            raise HTTPException(404, "wallet_not_found")
        after = _after(kind, body.status, wallet, amount)
        if after[0] < 0:
            raise HTTPException(409, "insufficient_funds")
        version = wallet["version"] + 1
        await connection.execute(
            WRITE, wallet_id, version, *after, transfer_id, kind, body.status, amount
        )
    return TransferResponse(
        id=UUID(bytes=transfer_id.bytes),
        wallet_id=wallet_id,
        type=kind,
        status=body.status,
        amount=body.amount,
        wallet=Balances(version=version, balance=f"{after[0] // 100}.{after[0] % 100:02}"),
    )


def _after(kind: str, status: str, wallet: asyncpg.Record, amount: int) -> tuple[int, int, int]:
    """Balance, pending debit and pending credit after the transfer."""
    balance, debit, credit = _state(wallet)
    if kind == "credit":
        return balance - amount, debit, credit + (amount if status == "pending" else 0)
    if status == "pending":
        return balance, debit + amount, credit
    return balance + amount, debit, credit


def _state(wallet: asyncpg.Record) -> tuple[int, int, int]:
    return int(wallet["balance"]), int(wallet["pending_debit"]), int(wallet["pending_credit"])
