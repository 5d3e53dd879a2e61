"""Without authentication the service may bind to loopback only, unless explicitly allowed."""

import ipaddress

from runtime.settings import Settings


class InsecureBindAddress(Exception):
    """The service would accept unauthenticated remote clients. The text says what to do."""


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is reachable from this machine only (None: all interfaces)."""
    if not host:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # A host name: it may resolve to any address.


def is_exposed_unauthenticated(settings: Settings, host: str | None) -> bool:
    """Whether a client on another machine could move money without an API key."""
    return settings.auth == "off" and not is_loopback(host)


def bind_policy_error(settings: Settings, host: str | None) -> str | None:
    """Why the service must not listen on ``host``, and what to do; or None."""
    if not is_exposed_unauthenticated(settings, host) or settings.allow_unauthenticated_remote:
        return None
    return (
        "Authentication is off, so the service may listen on loopback only, not on "
        f"{host or 'every interface'}: set WALLET_AUTH=required (create keys with `wallet keys "
        "create`), or WALLET_ALLOW_UNAUTHENTICATED_REMOTE=true if another layer authenticates "
        "clients."
    )


def check_bind_policy(settings: Settings, host: str | None) -> None:
    """Refuse to start if unauthenticated remote clients could connect and that isn't allowed.

    Raises:
        InsecureBindAddress: they could.
    """
    refusal = bind_policy_error(settings, host)
    if refusal is not None:
        raise InsecureBindAddress(refusal)
