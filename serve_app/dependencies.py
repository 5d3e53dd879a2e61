"""What the routes work with: made once per process by its composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from actors.dispatch.dispatcher import Dispatcher
from projections.queries import Queries
from runtime.settings import Settings
from serve_app.auth.authenticator import Authenticator
from serve_app.http.models import Component


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """The ingress' parts. ``probes`` say, by name, whether what the service needs is ready."""

    settings: Settings
    dispatcher: Dispatcher
    queries: Queries
    probes: dict[str, Callable[[], Awaitable[Component]]]
    gate: Authenticator | None = None
    """None: no keys are asked for."""
    is_exposed_unauthenticated: bool = False
    """No keys are asked for, and other machines can come."""


def dependencies_of(request: Request) -> Dependencies:
    return cast("Dependencies", request.app.state.services)
