"""`/1.0/instances/NAME/backups`, and exports and imports as streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from urllib.parse import quote

import structlog
from aiohttp import web

from lxpy.api import backups as api
from lxpy.daemon import http
from lxpy.errors import BadRequest, LxpyError
from lxpy.operations.registry import Operation
from lxpy.services.backups.backups import Backups
from lxpy.services.backups.exports import Exports, Wish
from lxpy.units import is_true

_CHUNK = 1 << 18

_log = structlog.get_logger()


class Handlers:
    """The handlers below one of the two paths."""

    def __init__(self, backups: Backups, exports: Exports, path: str) -> None:
        self._backups = backups
        self._exports = exports
        self._path = path

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        project, name = http.project(request), http.segment(request, "name")
        prefix = f"{self._path}/{quote(name)}/backups"
        return http.listing(request, prefix, await self._backups.list(project, name))

    async def create(self, request: web.Request) -> web.Response:
        """Make a backup."""
        wish = await http.body(request, api.BackupsPost)
        project, name = http.project(request), http.segment(request, "name")
        return http.accepted(await self._backups.create(project, name, wish))

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one backup."""
        return http.sync(await self._backups.get(*_place(request)))

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a backup."""
        wish = await http.body(request, api.BackupPost)
        return http.accepted(await self._backups.rename(*_place(request), wish))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a backup."""
        return http.accepted(await self._backups.delete(*_place(request)))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Reply with a backup's file."""
        path = await self._backups.path(*_place(request))
        headers = {"Content-Type": "application/octet-stream"}
        return web.FileResponse(path, headers=headers, chunk_size=_CHUNK)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Reply with an archive that is made while it is sent."""
        project, name = http.project(request), http.segment(request, "name")
        query = request.query
        wish = Wish(
            packer=await self._exports.packer(project, query.get("compression", "")),
            instance_only=is_true(query.get("instance-only")),
            since=query.get("since", ""),
        )
        self._exports.check(project, name, wish)
        async with self._exports.stream(project, name, wish) as chunks:
            return await send(request, chunks)


async def send(
    request: web.Request, chunks: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Reply with what is produced while it is sent, in chunks of HTTP.

    What fails before the first byte is raised. Afterwards the connection is cut, so that nobody
    takes for whole what is not.
    """
    first = await anext(chunks, b"")
    response = web.StreamResponse(
        headers={"Content-Type": "application/octet-stream", **(headers or {})}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    except LxpyError as error:
        _log.warning("a stream breaks off", url=request.path_qs, error=str(error))
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(str(error)) from error
    await response.write_eof()
    return response


async def receive(
    request: web.Request, take: Callable[[AsyncIterator[bytes]], Awaitable[Operation]]
) -> web.Response:
    """Have a body of any length taken as it comes, and reply with its operation.

    A client hears why its upload was not wanted only when it has sent all of it.
    """
    body = upload(request)
    try:
        return http.accepted(await take(body))
    finally:
        await body.aclose()
        try:
            async for _ in upload(request):
                continue
        except BadRequest:
            pass  # it does not listen any more


async def upload(request: web.Request) -> AsyncGenerator[bytes, None]:
    """Yield the request's body as it comes. Raises BadRequest when it breaks off."""
    try:
        async for chunk in request.content.iter_chunked(_CHUNK):
            yield chunk
    except Exception as error:  # aiohttp has several for a client that goes away
        raise BadRequest(f"the upload broke off: {error or type(error).__name__}") from error


def _place(request: web.Request) -> tuple[str, str, str]:
    names = http.segment(request, "name"), http.segment(request, "backup")
    return http.project(request), *names


def routes(backups: Backups, exports: Exports) -> list[web.RouteDef]:
    """Return the routes of backups."""
    found: list[web.RouteDef] = []
    for path in ("/1.0/instances", "/1.0/containers"):
        handlers = Handlers(backups, exports, path)
        every = path + "/{name}/backups"
        one = every + "/{backup}"
        found += [
            web.get(every, handlers.list),
            web.post(every, handlers.create),
            web.get(one, handlers.get),
            web.post(one, handlers.rename),
            web.delete(one, handlers.delete),
            web.get(f"{one}/export", handlers.export),
            web.get(path + "/{name}/export", handlers.stream),
        ]
    return found
