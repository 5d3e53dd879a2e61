"""Asks the service whether it is ready, and which part of it isn't."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 5.0  # longer than the service's own ready_timeout_s

# Never through a proxy that the environment names: the service is on this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that the service needs."""

    name: str
    is_ready: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What GET /readyz said; no parts if nothing answered."""

    is_ready: bool
    parts: tuple[Component, ...] = ()

    @property
    def summary(self) -> str:
        """What isn't ready, in words."""
        if not self.parts:
            return "nothing answers"
        waiting = [f"{part.name}: {part.detail}" for part in self.parts if not part.is_ready]
        return "; ".join(waiting) or "ready"


def fetch_readiness(http_url: str) -> Readiness:
    """Ask once, bounded. Whatever goes wrong counts as not ready."""
    try:
        with _direct.open(f"{http_url}/readyz", timeout=_TIMEOUT_S) as answer:
            return Readiness(is_ready=answer.status == 200, parts=_parts(answer.read()))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Readiness(is_ready=False, parts=_parts(refusal.read()))
    except OSError:
        return Readiness(is_ready=False)


def _parts(body: bytes) -> tuple[Component, ...]:
    """The answer's components. Another server's answer, or HAProxy's own, has none."""
    try:
        components: dict[str, dict[str, Any]] = json.loads(body)["components"]
        return tuple(
            Component(name=name, is_ready=part["ready"] is True, detail=str(part["detail"]))
            for name, part in components.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
