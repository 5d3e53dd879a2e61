"""Pages for browsers: the front page and the problems. Other clients get the same as JSON."""

from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse

from serve_app.http.models import ProblemKind, ServiceLinks

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;
overflow-wrap:anywhere}}code{{background:#eee;padding:.1em .3em;border-radius:3px}}
dt{{margin-top:1rem}}dd{{margin:0}}</style>
<h1>{title}</h1>
{content}
</html>
"""

_LINKS: Final = '<p><a href="/">Service</a> · <a href="/problems">All problems</a> · {api}</p>'
_API: Final = '<a href="/docs">API</a>'


def wants_html(request: Request) -> bool:
    """Whether the client is a browser: it accepts HTML by name."""
    return "text/html" in request.headers.get("accept", "")


def front_page(links: ServiceLinks) -> HTMLResponse:
    """What this service is, and where to go from here."""
    events = f"<code>{escape(links.stream)}</code>"
    if links.stream_server is not None:
        events += f", at <code>{escape(links.stream_server)}</code>"
    entries = {
        "API, to read and to try": _link(links.docs),
        "OpenAPI document; as 3.0 for older generators": f"{_link(links.openapi)}, "
        f"{_link(links.openapi_3_0)}",
        "Problems, and what to do": _link(links.problems),
        "Health of the node, readiness": f"{_link(links.health)}, {_link(links.readiness)}",
        "Event stream (NATS JetStream)": events,
    }
    return _page("Wallet service", _definitions(entries))


def problem_list_page(problems: list[ProblemKind]) -> HTMLResponse:
    """All problems with their remedies."""
    entries = {
        f'<a href="{one.type}"><code>{one.code}</code></a> {one.status} {escape(one.title)}': (
            escape(one.remedy)
        )
        for one in problems
    }
    return _page("Problems", _definitions(entries) + _LINKS.format(api=_API))


def problem_page(problem: ProblemKind) -> HTMLResponse:
    """One problem and its remedy."""
    content = (
        f"<p><code>{problem.code}</code>, HTTP {problem.status}</p>"
        f"<p>{escape(problem.remedy)}</p>" + _LINKS.format(api=_API)
    )
    return _page(problem.title, content)


def _page(title: str, content: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=escape(title), content=content))


def _link(path: str) -> str:
    return f'<a href="{path}">{path}</a>'


def _definitions(entries: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{t}</dt><dd>{d}</dd>" for t, d in entries.items()) + "</dl>"
