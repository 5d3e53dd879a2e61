"""Reads GET /readyz: is the service ready, and which component isn't."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 5.0  # longer than the service's own ready_timeout_s

# Without the environment's HTTP proxy: the service is on this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component of the service."""

    name: str
    is_ready: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The response of GET /readyz; no parts if there was none."""

    is_ready: bool
    parts: tuple[Component, ...] = ()

    @property
    def summary(self) -> str:
        """The components that are not ready, as text."""
        if not self.parts:
            return "no response"
        waiting = [f"{part.name}: {part.detail}" for part in self.parts if not part.is_ready]
        return "; ".join(waiting) or "ready"


def fetch_readiness(http_url: str) -> Readiness:
    """Send one request, with a time-out. Any failure counts as not ready."""
    try:
        with _direct.open(f"{http_url}/readyz", timeout=_TIMEOUT_S) as response:
            return Readiness(is_ready=response.status == 200, parts=_parts(response.read()))
    except urllib.error.HTTPError as response:
        with response:
            return Readiness(is_ready=False, parts=_parts(response.read()))
    except OSError:
        return Readiness(is_ready=False)


def _parts(body: bytes) -> tuple[Component, ...]:
    """The response's components. A response of HAProxy or of another server has none."""
    try:
        components: dict[str, dict[str, Any]] = json.loads(body)["components"]
        return tuple(
            Component(name=name, is_ready=part["ready"] is True, detail=str(part["detail"]))
            for name, part in components.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
