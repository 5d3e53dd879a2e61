"""What the commands `wallet keys create|list|revoke|who` do, one function each."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.cli.stack_commands import running_settings
from deploy.local.errors import StackError
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings
from serve_app.auth.api_key import PREFIX, SCOPES, NewApiKey, generate
from serve_app.auth.store import ApiKeyRecord, KeyStore, KeysUnavailable
from wallet.ids import canonical_uuid

ResultT = TypeVar("ResultT")

_NAME_MAX: Final = 100

_WIDTH: Final = 200
"""Ids are there to be copied: a narrow terminal breaks lines, it doesn't shorten them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeyOptions:
    """A key to be made. ``expires_in_days`` and ``rate_per_s``: None for none of its own."""

    name: str
    scopes: tuple[str, ...]
    expires_in_days: float | None = None
    rate_per_s: float | None = None


def create(settings: Settings, home: StateDirectory, wanted: NewKeyOptions) -> NewApiKey:
    """Make a key. Whoever calls this shows it: nobody else ever can."""
    unknown = sorted(set(wanted.scopes) - set(SCOPES))
    if unknown:
        raise StackError(f"There is no scope {unknown[0]}: choose among {', '.join(SCOPES)}.")
    if not 1 <= len(wanted.name) <= _NAME_MAX:
        raise StackError(f"A key's name has 1 to {_NAME_MAX} characters.")
    expires_at = None
    if wanted.expires_in_days is not None:
        if wanted.expires_in_days <= 0:
            raise StackError("A key that has expired already is of no use: give it some days.")
        expires_at = datetime.now(UTC) + timedelta(days=wanted.expires_in_days)
    key = generate()
    _with_store(
        settings,
        home,
        lambda store: store.add(
            key,
            name=wanted.name,
            scopes=sorted(set(wanted.scopes)),
            rate_per_s=wanted.rate_per_s,
            expires_at=expires_at,
        ),
    )
    return key


def show(settings: Settings, home: StateDirectory, console: Console) -> None:
    """A line a key, oldest first."""
    keys = _with_store(settings, home, lambda store: store.all())
    if not keys:
        console.print("There are no keys. `wallet keys create` makes one.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("ID", "NAME", "SCOPES", "STATE", "RATE", "CREATED", "EXPIRES", "LAST USED"):
        table.add_column(title, no_wrap=True)
    now = datetime.now(UTC)
    for key in keys:
        table.add_row(
            key.key_id,
            escape(key.name),
            " ".join(key.scopes),
            _state(key, now),
            "" if key.rate_per_s is None else f"{key.rate_per_s:g}/s",
            _timestamp(key.created_at),
            _timestamp(key.expires_at),
            _timestamp(key.last_used_at),
        )
    _print_wide(console, table)


def revoke(settings: Settings, home: StateDirectory, key_id: str, console: Console) -> None:
    """Revoke a key; StackError if there is none."""
    key_id = key_id.removeprefix(f"{PREFIX}_").partition("_")[0]  # a whole key is understood, too

    async def end(store: KeyStore) -> tuple[bool, bool]:
        revoked = await store.revoke(key_id)
        return revoked, key_id in await store.find([key_id])

    revoked, exists = _with_store(settings, home, end)
    if not exists:
        raise StackError(f"There is no key {key_id}: `wallet keys list` shows all of them.")
    console.print(
        f"Revoked {key_id}. Replicas stop taking it within {settings.api_key_cache_ttl_s:g} s."
        if revoked
        else f"{key_id} was revoked before.",
        highlight=False,
    )


def attribute(
    settings: Settings,
    home: StateDirectory,
    wallet_id: str,
    transfer_id: str | None,
    limit: int,
    console: Console,
) -> None:
    """A line an event, newest first, with the key that made it."""
    wallet = canonical_uuid(wallet_id)
    transfer = canonical_uuid(transfer_id) if transfer_id is not None else None
    if wallet is None or (transfer_id is not None and transfer is None):
        raise StackError("Ids of wallets and transfers are UUIDs.")
    made = _with_store(
        settings, home, lambda store: store.attributed_events(wallet, transfer, limit=limit)
    )
    table = Table(box=None, pad_edge=False)
    for title in ("VERSION", "WHEN", "WHAT", "TRANSFER", "KEY", "NAME"):
        table.add_column(title, no_wrap=True)
    for one in made:
        table.add_row(
            str(one.version),
            _timestamp(one.occurred_at),
            one.type,
            one.transfer_id or "",
            one.key_id or "no key was asked for",
            escape(one.key_name or ""),
        )
    if made:
        _print_wide(console, table)
    else:
        console.print("The journal has no such event.")


def _print_wide(console: Console, table: Table) -> None:
    console.width = max(console.width, _WIDTH)
    console.print(table)


def _state(key: ApiKeyRecord, now: datetime) -> str:
    if key.revoked_at is not None:
        return "[red]revoked[/red]"
    if key.expires_at is not None and key.expires_at <= now:
        return "[red]expired[/red]"
    return "[green]good[/green]"


def _timestamp(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _with_store(
    settings: Settings, home: StateDirectory, work: Callable[[KeyStore], Awaitable[ResultT]]
) -> ResultT:
    settings = running_settings(settings, home)

    async def run() -> ResultT:
        async with asyncpg.create_pool(
            settings.database_url,
            min_size=0,
            max_size=1,
            timeout=settings.database_connect_timeout_s,
        ) as pool:
            return await work(KeyStore(pool, timeout_s=settings.database_timeout_s))

    try:
        return asyncio.run(run())
    except KeysUnavailable as failure:
        raise StackError(
            f"Database error ({failure}). Is Postgres running and migrated (`wallet migrate`)?"
        ) from failure
