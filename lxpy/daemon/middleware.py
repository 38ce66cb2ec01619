"""Around every handler: who asks, what goes wrong, and a daemon that is coming or going."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from secrets import token_hex

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from lxpy.daemon import auth
from lxpy.daemon.http import SCOPES, failed
from lxpy.errors import LxpyError
from lxpy.events.lifecycle import requestor
from lxpy.operations.registry import asked_in
from lxpy.services.projects.scopes import Scopes
from lxpy.services.server import access
from lxpy.services.server.trust import Trust

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger()

#: where LXD's answer is an empty list, or does not depend on the project
_ANYWHERE = re.compile(
    r"/|/1\.0(/(instances|containers|virtual-machines|events|metrics|operations.*))?"
)
_NETWORK = re.compile(r"/1\.0/networks/(?P<name>[^/]+)")
_READING = ("GET", "HEAD", "OPTIONS")
#: what changes nothing in the database: recovery itself, and the use of what runs
_HARMLESS = re.compile(
    r"/internal/.*|/1\.0/(operations|warnings)/.*|/1\.0/\w+/[^/]+/(exec|console|files)"
)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an error envelope."""
    try:
        return await handler(request)
    except LxpyError as error:
        return failed(error.status, str(error))
    except web.HTTPNotFound:
        return failed(404, "not found")
    except web.HTTPMethodNotAllowed:
        return failed(501, "not implemented")
    except web.HTTPRequestEntityTooLarge as error:
        return failed(413, error.text or "The request is too large")
    except web.HTTPException as error:
        return failed(error.status, error.text or error.reason)
    except ConnectionError:
        raise
    except Exception:
        number = token_hex(4)
        _log.exception("request broke", request=number, method=request.method, url=request.path_qs)
        return failed(500, f"Internal error, see the daemon's log for request {number}")


def identity(trust: Trust, is_open: Callable[[str], bool]) -> Middleware:
    """Return what notes who asks, and refuses what strangers and restricted clients may not.

    Paths that are `is_open` anybody may read.
    """

    @web.middleware
    async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
        missing = request.match_info.http_exception
        if isinstance(missing, web.HTTPNotFound):
            raise missing  # also to strangers
        who = auth.recognize(request, trust)
        reads_open = request.method in _READING and is_open(request.path)
        if not reads_open and not who.may(request.method, request.path):
            return failed(403, "not authorized")
        told = requestor.set(who.requestor())
        confined = access.projects.set(who.projects)
        try:
            return await handler(request)
        finally:
            requestor.reset(told)
            access.projects.reset(confined)

    return identified


def projects(scopes: Scopes) -> Middleware:
    """Return what refuses requests about a project that does not exist, but for plain lists."""

    @web.middleware
    async def known(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[SCOPES] = scopes
        name = request.query.get("project")
        if name and not scopes.has(name) and not _ANYWHERE.fullmatch(request.path):
            return failed(404, "Project not found")
        asked = asked_in.set(name or "")
        try:
            return await handler(request)
        finally:
            asked_in.reset(asked)

    return known


def networks(sees: Callable[[str, str], bool]) -> Middleware:
    """Return what hides a network of which a project may not know: `sees(project, name)`."""

    @web.middleware
    async def visible(request: web.Request, handler: Handler) -> web.StreamResponse:
        found = _NETWORK.match(request.path)
        if found and not sees(request.query.get("project") or "default", found["name"]):
            return failed(404, "Network not found")
        return await handler(request)

    return visible


def guard(reason: Callable[[], str], leaving: Callable[[], bool]) -> Middleware:
    """Return what refuses changes while there is a `reason` to, and all while `leaving`."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if leaving():
            return failed(503, "LXD daemon setup in progress: try again in a moment")
        changes = request.method not in _READING and not _HARMLESS.fullmatch(request.path)
        if changes and (why := reason()):
            return failed(503, why)
        return await handler(request)

    return guarded
