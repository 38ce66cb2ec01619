"""Pages of other sites that use the API: what browsers are told of them.

Source: LXD docs, `core.https_allowed_*`; the Fetch standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from lxpy.units import is_true

_KEY = "core.https_allowed_"
_HEADERS = {
    "origin": "Access-Control-Allow-Origin",
    "methods": "Access-Control-Allow-Methods",
    "headers": "Access-Control-Allow-Headers",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what browsers ask before they send a request; `allow` adds what they want to know."""
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


def allow(
    setting: Callable[[str], str],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return what adds headers to a reply; `setting` returns the value of a server's key."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        if "Origin" in request.headers:
            for name, header in _HEADERS.items():
                if value := setting(_KEY + name):
                    response.headers[header] = value
        if is_true(setting(f"{_KEY}credentials")):
            response.headers["Access-Control-Allow-Credentials"] = "true"

    return add
