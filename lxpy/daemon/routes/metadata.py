"""`/1.0/instances/NAME/metadata` and the templates below it."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from lxpy.api.metadata import ImageMetadata, ImageMetadataPatch
from lxpy.daemon import http
from lxpy.errors import BadRequest
from lxpy.services.instances.metadata import InstanceMetadata

_MAX_BYTES = 2 << 20


class Handlers:
    """The handlers."""

    def __init__(self, metadata: InstanceMetadata) -> None:
        self._metadata = metadata

    async def get(self, request: web.Request) -> web.Response:
        """Reply with an instance's metadata."""
        found = await self._metadata.get(*_instance(request))
        return http.sync(found, etag_of=found)

    async def put(self, request: web.Request) -> web.Response:
        """Replace them."""
        wish = await http.body(request, ImageMetadata)
        check = partial(http.check_match, request)
        await self._metadata.put(*_instance(request), wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, ImageMetadataPatch)
        check = partial(http.check_match, request)
        await self._metadata.patch(*_instance(request), wish, check)
        return http.empty()

    async def templates(self, request: web.Request) -> web.Response:
        """Reply with the names of the templates, or with the one that is asked for."""
        file = request.query.get("path", "")
        if not file:
            return http.sync(await self._metadata.templates(*_instance(request)))
        data = await self._metadata.template(*_instance(request), file)
        headers = {"Content-Disposition": f"inline;filename={file}"}
        return web.Response(body=data, headers=headers, content_type="application/octet-stream")

    async def put_template(self, request: web.Request) -> web.Response:
        """Make or replace a template."""
        data = bytearray()
        async for chunk in request.content.iter_any():
            data += chunk
            if len(data) > _MAX_BYTES:
                raise BadRequest(f"A template is not longer than {_MAX_BYTES >> 20} MiB")
        file = request.query.get("path", "")
        await self._metadata.put_template(*_instance(request), file, bytes(data))
        return http.empty()

    async def delete_template(self, request: web.Request) -> web.Response:
        """Remove a template."""
        file = request.query.get("path", "")
        await self._metadata.delete_template(*_instance(request), file)
        return http.empty()


def _instance(request: web.Request) -> tuple[str, str]:
    return http.project(request), http.segment(request, "name")


def routes(metadata: InstanceMetadata) -> list[web.RouteDef]:
    """Return the routes."""
    handlers = Handlers(metadata)
    found: list[web.RouteDef] = []
    for path in ("/1.0/instances", "/1.0/containers"):
        one = path + "/{name}/metadata"
        found += [
            web.get(one, handlers.get),
            web.put(one, handlers.put),
            web.patch(one, handlers.patch),
            web.get(f"{one}/templates", handlers.templates),
            web.post(f"{one}/templates", handlers.put_template),
            web.delete(f"{one}/templates", handlers.delete_template),
        ]
    return found
