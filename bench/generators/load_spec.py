"""A load to be generated, and what can go wrong with that."""

import msgspec

from bench.generators.request_script import ResponseMode


class LoadFailed(Exception):
    """The load could not be generated or measured; nothing can be said about the service."""


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to send and how. ``url`` is scheme, host and port of a service."""

    url: str
    deck: str
    """File that `Deck.write` wrote."""
    mode: ResponseMode
    connections: int
    duration_s: float
    key_prefix: str
    """Makes the idempotency keys of this load different from every other's."""
    rate: float | None = None
    """Requests/s of an open loop; None: a closed loop."""
    headers: tuple[str, ...] = ()
    """`Name: value` lines of every request."""
