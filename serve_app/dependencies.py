"""Dependencies of the routes, created once per process by the composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from actors.dispatch.dispatcher import Dispatcher
from actors.journal.postgres_reader import JournalReader
from projections.queries import Queries
from runtime.settings import Settings
from serve_app.auth.authenticator import Authenticator
from serve_app.http.models import Component


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """Components of an ingress replica. ``probes``: the readiness checks by component name."""

    settings: Settings
    dispatcher: Dispatcher
    queries: Queries
    probes: dict[str, Callable[[], Awaitable[Component]]]
    authenticator: Authenticator | None = None
    """Authenticates API keys; None: authentication is off."""
    reaches_a_shard: Callable[[], bool] = lambda: True
    """Whether commands reach any shard."""
    is_exposed_unauthenticated: bool = False
    """Authentication is off and the service is reachable from other machines."""

    @property
    def journal(self) -> JournalReader:
        """Reads of the journal, by the connections of all reads."""
        return JournalReader(self.queries.reads)


def dependencies_of(request: Request) -> Dependencies:
    return cast("Dependencies", request.app.state.services)
