"""The commands `wallet keys create|list|revoke|attribution`, one function each."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.cli.stack_commands import running_settings
from deploy.local.errors import StackError
from deploy.local.state_dir import StateDirectory
from runtime.postgres.connect import Connector
from runtime.settings import Settings
from serve_app.auth.api_key import PREFIX, SCOPES, NewApiKey, generate
from serve_app.auth.store import ApiKeyRecord, AttributedEvent, KeyStore, KeysUnavailable
from wallet.ids import canonical_uuid

ResultT = TypeVar("ResultT")

_NAME_MAX: Final = 100

_WIDTH: Final = 200
"""Ids must stay whole to be copied: a narrow terminal wraps the lines."""


KeyState = Literal["active", "expired", "revoked"]

_COLOURS: Final[dict[KeyState, str]] = {"active": "green", "expired": "red", "revoked": "red"}


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """What `wallet keys create --json` prints."""

    id: str
    key: str
    """The whole key, with its secret."""


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    """An element of the list that `wallet keys list --json` prints. Times are UTC."""

    id: str
    name: str
    scopes: tuple[str, ...]
    state: KeyState
    rate_per_s: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeyOptions:
    """Options of a new API key. None: it doesn't expire, and it has the default rate limit."""

    name: str
    scopes: tuple[str, ...]
    expires_in_days: float | None = None
    rate_per_s: float | None = None


def create(settings: Settings, state_dir: StateDirectory, options: NewKeyOptions) -> NewApiKey:
    """Create an API key. The caller must show it: only its hash is stored."""
    unknown = sorted(set(options.scopes) - set(SCOPES))
    if unknown:
        raise StackError(f"Unknown scope {unknown[0]}. Valid scopes: {', '.join(SCOPES)}.")
    if not 1 <= len(options.name) <= _NAME_MAX:
        raise StackError(f"The name of a key must have 1 to {_NAME_MAX} characters.")
    expires_at = None
    if options.expires_in_days is not None:
        if options.expires_in_days <= 0:
            raise StackError("--expires-in-days must be greater than 0.")
        expires_at = datetime.now(UTC) + timedelta(days=options.expires_in_days)
    key = generate()
    _with_store(
        settings,
        state_dir,
        lambda store: store.add(
            key,
            name=options.name,
            scopes=sorted(set(options.scopes)),
            rate_per_s=options.rate_per_s,
            expires_at=expires_at,
        ),
    )
    return key


def all_as_json(settings: Settings, state_dir: StateDirectory) -> str:
    """All API keys as a JSON list, oldest first."""
    now = datetime.now(UTC)
    keys = _with_store(settings, state_dir, lambda store: store.all())
    return encoded(
        [
            ListedKey(
                id=key.key_id,
                name=key.name,
                scopes=key.scopes,
                state=_state(key, now),
                rate_per_s=key.rate_per_s,
                created_at=key.created_at,
                expires_at=key.expires_at,
                revoked_at=key.revoked_at,
                last_used_at=key.last_used_at,
            )
            for key in keys
        ]
    )


def encoded(document: object) -> str:
    """JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def show(settings: Settings, state_dir: StateDirectory, console: Console) -> None:
    """Print one line per API key, oldest first."""
    keys = _with_store(settings, state_dir, lambda store: store.all())
    if not keys:
        console.print("No API keys. Create one with `wallet keys create`.")
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
            f"[{_COLOURS[_state(key, now)]}]{_state(key, now)}",
            "" if key.rate_per_s is None else f"{key.rate_per_s:g}/s",
            _timestamp(key.created_at),
            _timestamp(key.expires_at),
            _timestamp(key.last_used_at),
        )
    _print_wide(console, table)


def revoke(settings: Settings, state_dir: StateDirectory, key_id: str, console: Console) -> None:
    """Revoke an API key; StackError if it doesn't exist."""
    key_id = key_id.removeprefix(f"{PREFIX}_").partition("_")[0]  # a whole key is accepted, too

    async def revoke_in(store: KeyStore) -> tuple[bool, bool]:
        revoked = await store.revoke(key_id)
        return revoked, key_id in await store.find([key_id])

    revoked, exists = _with_store(settings, state_dir, revoke_in)
    if not exists:
        raise StackError(f"No API key with id {key_id}. List the keys with `wallet keys list`.")
    console.print(
        f"Revoked {key_id}. All replicas reject it within {settings.api_key_cache_ttl_s:g} s."
        if revoked
        else f"{key_id} is already revoked.",
        highlight=False,
    )


def attributed(
    settings: Settings,
    state_dir: StateDirectory,
    wallet_id: str,
    transfer_id: str | None,
    limit: int,
) -> list[AttributedEvent]:
    """The latest events of a wallet, newest first, with the API key that made each."""
    wallet = canonical_uuid(wallet_id)
    transfer = canonical_uuid(transfer_id) if transfer_id is not None else None
    if wallet is None or (transfer_id is not None and transfer is None):
        raise StackError("Wallet and transfer ids must be UUIDs.")
    return _with_store(
        settings, state_dir, lambda store: store.attributed_events(wallet, transfer, limit=limit)
    )


def show_attribution(events: list[AttributedEvent], console: Console) -> None:
    """Print one line per event."""
    table = Table(box=None, pad_edge=False)
    for title in ("VERSION", "TIME", "TYPE", "TRANSFER", "KEY", "NAME"):
        table.add_column(title, no_wrap=True)
    for event in events:
        table.add_row(
            str(event.version),
            _timestamp(event.occurred_at),
            event.type,
            event.transfer_id or "",
            event.key_id or "(no authentication)",
            escape(event.key_name or ""),
        )
    if events:
        _print_wide(console, table)
    else:
        console.print("No matching events in the journal.")


def _print_wide(console: Console, table: Table) -> None:
    console.width = max(console.width, _WIDTH)
    console.print(table)


def _state(key: ApiKeyRecord, now: datetime) -> KeyState:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "active"


def _timestamp(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _with_store(
    settings: Settings, state_dir: StateDirectory, work: Callable[[KeyStore], Awaitable[ResultT]]
) -> ResultT:
    settings = running_settings(settings, state_dir)

    async def run() -> ResultT:
        connector = Connector(settings.database_url, timeout_s=settings.database_connect_timeout_s)
        async with connector.pool(max_size=1) as pool:
            return await work(KeyStore(pool, timeout_s=settings.database_timeout_s))

    try:
        return asyncio.run(run())
    except KeysUnavailable as failure:
        raise StackError(
            f"Database error ({failure}). Is Postgres running and migrated (`wallet migrate`)?"
        ) from failure
