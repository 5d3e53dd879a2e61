"""The specification of a load, and the error if it can't be generated."""

import msgspec

from bench.generators.request_script import ResponseMode


class LoadFailed(Exception):
    """The load could not be generated or measured; the result says nothing about the service."""


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to send and how. ``url`` is scheme, host and port of a service."""

    url: str
    script_file: str
    """File written by `RequestScript.write`."""
    mode: ResponseMode
    connections: int
    duration_s: float
    key_prefix: str
    """Makes the idempotency keys of this load unique."""
    rate: float | None = None
    """Requests/s of an open loop; None: a closed loop."""
    headers: tuple[str, ...] = ()
    """`Name: value` lines of every request."""
