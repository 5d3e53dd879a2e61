"""The access log: a line per request at DEBUG, and the request's fields for other log events."""

from typing import Any

import structlog
from starlette.requests import Request

from serve_app.http.requests import request_id_of

_log = structlog.get_logger(__name__)

_PATH_IDS = ("wallet_id", "transfer_id")


def log_context(request: Request) -> dict[str, str]:
    """Log fields that identify a request. Never headers, never a body."""
    found = {"request_id": request_id_of(request)}
    values: dict[str, Any] = request.scope.get("path_params") or {}
    found |= {name: str(values[name]) for name in _PATH_IDS if name in values}
    trace_id = (request.scope.get("state") or {}).get("trace_id")
    return found | ({"trace_id": trace_id} if trace_id else {})


class AccessLog:
    """Only at DEBUG: a line per request costs a quarter of the throughput."""

    enabled = False

    @classmethod
    def enable_for(cls, level: str) -> None:
        cls.enabled = level == "DEBUG"

    @staticmethod
    def record(request: Request, route: str, status: int, took_s: float) -> None:
        milliseconds = round(took_s * 1000, 3)
        _log.debug(
            "request completed",
            route=route,
            status=status,
            took_ms=milliseconds,
            **log_context(request),
        )
