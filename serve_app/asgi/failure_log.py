"""A log line for every answer of 5xx, with what finds the request again; few in an outage."""

from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog
from starlette.requests import Request

from serve_app.asgi.access_log import log_context
from serve_app.http.problems import PROBLEM_TYPES, ProblemError

_log = structlog.get_logger(__name__)

_LINES_PER_S: Final = 20
"""Lines a second and process. An outage fails thousands of requests a second for one reason."""

_FAILURE_MIN: Final = 500


class FailureLog:
    """Logs failed requests. ``now_s``: a monotonic clock in seconds."""

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def record(self, request: Request, route: str, problem: ProblemError) -> None:
        """Log ``problem`` if it is a failure of the service, and not one of too many."""
        status = PROBLEM_TYPES[problem.code].status
        if status < _FAILURE_MIN:
            return
        second = int(self._now_s())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= _LINES_PER_S:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        _log.warning(
            "request failed",
            route=route,
            status=status,
            code=problem.code,
            detail=problem.detail,
            applied=problem.applied,
            left_out=left_out,
            **log_context(request),
        )
