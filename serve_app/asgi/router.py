"""ASGI fast path: API routes go directly to their endpoints, everything else to FastAPI.

FastAPI and its middleware cost half of an ingress replica's CPU time per request (measured). So the
API's routes are matched here, by the segments of their path. FastAPI serves the OpenAPI document
and the docs page, and answers unknown routes (404) and wrong methods (405).
"""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.asgi.cross_origin import allow_origins, is_cross_origin

Segments = tuple[str | None, ...]
"""A path template; None is a parameter."""


class RouteTable:
    """Routes by method and number of segments; templates of literals and ``{parameters}``."""

    def __init__(self, routes: Iterable[tuple[str, str, ASGIApp]]) -> None:
        self._routes: dict[tuple[str, int], list[tuple[Segments, tuple[str, ...], ASGIApp]]] = {}
        for method, template, app in routes:
            parts = template.split("/")
            segments = tuple(None if part.startswith("{") else part for part in parts)
            names = tuple(part[1:-1] if part.startswith("{") else "" for part in parts)
            # Fewer parameters first: a literal takes precedence over a parameter.
            known = self._routes.setdefault((method, len(parts)), [])
            known.append((segments, names, app))
            known.sort(key=lambda route: sum(segment is None for segment in route[0]))

    def match(self, method: str, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        """The application for a request, and the values of its path parameters."""
        parts = path.split("/")
        for segments, names, app in self._routes.get((method, len(parts)), ()):
            for segment, part in zip(segments, parts, strict=True):
                if segment != part and (segment is not None or not part):
                    break
            else:
                values = zip(names, parts, strict=True)
                return app, {name: part for name, part in values if name}
        return None


class FastPathApplication:
    """API routes from ``table``, everything else (and the lifespan) from ``fallback``.

    ``origins``: of the pages that may call the API from a browser.
    """

    def __init__(self, table: RouteTable, fallback: ASGIApp, origins: Iterable[str] = ()) -> None:
        self._table = table
        self._fallback = fallback
        allowed = list(origins)
        self._cross_origin = allow_origins(self._route, allowed) if allowed else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not await self.handle(scope, receive, send):
            await self._fallback(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Handle the request if it is for an API route; returns whether it was."""
        if self._cross_origin is not None and is_cross_origin(scope):
            await self._cross_origin(scope, receive, send)
            return True
        return await self._handle(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._handle(scope, receive, send):
            await self._fallback(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        match = self._table.match(scope["method"], scope["path"])
        if match is None:
            return False
        app, scope["path_params"] = match
        scope["app"] = self._fallback
        await app(scope, receive, send)
        return True
