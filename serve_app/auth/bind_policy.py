"""Who could come without a key: a service that asks for none listens on loopback, or is told."""

import ipaddress

from runtime.settings import Settings


class InsecureBindAddress(Exception):
    """The service would let strangers in. Its text says what to do."""


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach what listens on ``host`` (None: on every interface)."""
    if not host:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may lead anywhere


def is_exposed_unauthenticated(settings: Settings, host: str | None) -> bool:
    """Whether somebody on another machine could move money without a key."""
    return settings.auth == "off" and not is_loopback(host)


def bind_policy_error(settings: Settings, host: str | None) -> str | None:
    """Why the service must not listen on ``host``, in words that say what to do; or None."""
    if not is_exposed_unauthenticated(settings, host) or settings.allow_unauthenticated_remote:
        return None
    return (
        f"Without keys the service listens on loopback only, not on {host or 'every interface'}: "
        "set WALLET_AUTH=required (and make keys with `wallet keys create`), or "
        "WALLET_ALLOW_UNAUTHENTICATED_REMOTE=true if something else keeps strangers away."
    )


def check_bind_policy(settings: Settings, host: str | None) -> None:
    """Refuse to start a service that would let strangers in, unless that is wanted.

    Raises:
        InsecureBindAddress: it would.
    """
    refusal = bind_policy_error(settings, host)
    if refusal is not None:
        raise InsecureBindAddress(refusal)
