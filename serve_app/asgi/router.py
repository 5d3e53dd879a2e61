"""The ASGI application in front: API routes straight to their endpoints, the rest to FastAPI.

What FastAPI and its middleware do around every request costs twice as much as deciding what to
do with it (measured: half of an ingress replica's CPU time). So the routes of the API are matched
here, by the segments of their path, and FastAPI keeps what it is good at: the OpenAPI document,
the docs page, and telling an unknown route from a wrong method.
"""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

Segments = tuple[str | None, ...]
"""A path template; None stands for a parameter."""


class RouteTable:
    """Routes by method and number of segments; templates of literals and ``{parameters}``."""

    def __init__(self, routes: Iterable[tuple[str, str, ASGIApp]]) -> None:
        self._routes: dict[tuple[str, int], list[tuple[Segments, tuple[str, ...], ASGIApp]]] = {}
        for method, template, app in routes:
            parts = template.split("/")
            segments = tuple(None if part.startswith("{") else part for part in parts)
            names = tuple(part[1:-1] if part.startswith("{") else "" for part in parts)
            # Fewer parameters first: a literal wins over a parameter in the same place.
            known = self._routes.setdefault((method, len(parts)), [])
            known.append((segments, names, app))
            known.sort(key=lambda route: sum(segment is None for segment in route[0]))

    def match(self, method: str, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        """The application for a request, and the values of its path's parameters."""
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
    """API routes from ``table``, everything else (and the lifespan) from ``fallback``."""

    def __init__(self, table: RouteTable, fallback: ASGIApp) -> None:
        self._table = table
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not await self.handle(scope, receive, send):
            await self._fallback(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the request was for an API route; then it has been answered."""
        match = self._table.match(scope["method"], scope["path"])
        if match is None:
            return False
        app, scope["path_params"] = match
        scope["app"] = self._fallback
        await app(scope, receive, send)
        return True
