"""What the routes work with: made once per process by its composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from actors.dispatcher import Dispatcher
from projections.queries import Queries
from serve_app.keys.gate import Gate
from serve_app.schemas import Component
from wallet.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The ingress' parts. ``probes`` say, by name, whether what the service needs is ready."""

    settings: Settings
    dispatcher: Dispatcher
    queries: Queries
    probes: dict[str, Callable[[], Awaitable[Component]]]
    gate: Gate | None = None
    """None: no keys are asked for."""
    is_open_to_strangers: bool = False
    """No keys are asked for, and other machines can come."""


def services_of(request: Request) -> Services:
    return cast("Services", request.app.state.services)
