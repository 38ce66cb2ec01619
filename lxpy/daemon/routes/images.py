"""`/1.0/images`, their aliases, and the recipes of what can be built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import parse_qsl, quote

import msgspec
from aiohttp import BodyPartReader, MultipartReader, web

from lxpy.api import images as api
from lxpy.daemon import http, multipart
from lxpy.errors import BadRequest
from lxpy.operations.registry import Operation
from lxpy.services.image_rows import Wish
from lxpy.services.images import Exported, Images
from lxpy.services.publish import SOURCES, Publish
from lxpy.units import is_true

_PATH = "/1.0/images"
_ALIASES = f"{_PATH}/aliases"
_CHUNK = 1 << 18
_JSON_BYTES = 16 << 20


class Handlers:
    """The handlers of images."""

    def __init__(self, images: Images, publish: Publish) -> None:
        self._images = images
        self._publish = publish

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        found = await self._images.everything(http.project(request))
        return http.listing(request, _PATH, found, name="fingerprint")

    async def create(self, request: web.Request) -> web.Response:
        """Receive an image, or start fetching, building or publishing one."""
        if request.content_type == "multipart/form-data":
            return http.accepted(await self._split(request))
        chunks = request.content.iter_chunked(_CHUNK)
        head = await anext(chunks, b"")
        # curl sends JSON as a form, other clients send images as JSON: the body tells
        if request.content_type == "application/json" or head.lstrip()[:1] == b"{":
            wish = await _decode(head, chunks)
            if wish.source.type in SOURCES:
                return http.accepted(await self._publish.create(http.project(request), wish))
            return http.accepted(await self._images.create(http.project(request), wish))
        operation = await self._images.upload_unified(
            http.project(request), _chain(head, chunks), _wish(request), _expected(request)
        )
        return http.accepted(operation)

    async def _split(self, request: web.Request) -> Operation:
        reader = await request.multipart()
        name, meta = await _part(reader)
        if name != "metadata":
            raise BadRequest('Invalid multipart image: the first part must be "metadata"')
        return await self._images.upload_split(
            http.project(request), meta, _rootfs(reader), _wish(request), _expected(request)
        )

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one image."""
        found, writable = await self._images.get(http.project(request), _fingerprint(request))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace an image's writable part."""
        wish = await http.body(request, api.ImagePut)
        check = partial(http.check_match, request)
        await self._images.put(http.project(request), _fingerprint(request), wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.ImagePatch)
        check = partial(http.check_match, request)
        await self._images.patch(http.project(request), _fingerprint(request), wish, check)
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete an image."""
        operation = await self._images.delete(http.project(request), _fingerprint(request))
        return http.accepted(operation)

    async def refresh(self, request: web.Request) -> web.Response:
        """Fetch an image anew."""
        operation = await self._images.refresh(http.project(request), _fingerprint(request))
        return http.accepted(operation)

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Reply with an image's file, or its two as a form."""
        found = await self._images.export(http.project(request), _fingerprint(request))
        return await send_export(request, found)

    async def recipes(self, _: web.Request) -> web.Response:
        """Reply with what this host can build."""
        found = self._images.sources.recipes()
        return http.sync(
            [
                api.Recipe(
                    name=each.alias, aliases=list(each.aliases), description=each.description
                )
                for each in found
            ]
        )


class AliasHandlers:
    """The handlers of aliases; a name may hold slashes, escaped or not."""

    def __init__(self, images: Images) -> None:
        self._aliases = images.aliases

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(request, _ALIASES, await self._aliases.list(http.project(request)))

    async def create(self, request: web.Request) -> web.Response:
        """Name an image."""
        wish, project = await http.body(request, api.AliasesPost), http.project(request)
        await self._aliases.create(project, wish)
        return http.created(f"{_ALIASES}/{quote(wish.name, safe='')}", project)

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one alias."""
        name = http.segment(request, "name")
        found = await self._aliases.get(http.project(request), name)
        return http.sync(found, etag_of=found)

    async def put(self, request: web.Request) -> web.Response:
        """Replace description and target."""
        wish = await http.body(request, api.AliasPut)
        check = partial(http.check_match, request)
        name = http.segment(request, "name")
        await self._aliases.put(http.project(request), name, wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.AliasPatch)
        check = partial(http.check_match, request)
        name = http.segment(request, "name")
        await self._aliases.patch(http.project(request), name, wish, check)
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename an alias."""
        wish, project = await http.body(request, api.AliasPost), http.project(request)
        await self._aliases.rename(project, http.segment(request, "name"), wish.name)
        return http.created(f"{_ALIASES}/{quote(wish.name, safe='')}", project)

    async def delete(self, request: web.Request) -> web.Response:
        """Remove an alias."""
        await self._aliases.delete(http.project(request), http.segment(request, "name"))
        return http.empty()


async def send_export(request: web.Request, found: Exported) -> web.StreamResponse:
    """Reply with an image's file, or its two as a form."""
    if len(found.files) == 1:
        name, path = found.files[0]
        headers = {
            "Content-Disposition": f"inline;filename={name}",
            "Content-Type": "application/octet-stream",
        }
        return web.FileResponse(path, headers=headers, chunk_size=_CHUNK)
    parts = [
        multipart.Part(field, name, path)
        for field, (name, path) in zip(("metadata", "rootfs"), found.files, strict=True)
    ]
    return await multipart.send(request, parts)


def routes(images: Images, publish: Publish) -> list[web.RouteDef]:
    """Return the routes of images and aliases."""
    handlers, aliases = Handlers(images, publish), AliasHandlers(images)
    alias, image = f"{_ALIASES}/{{name:.+}}", f"{_PATH}/{{fingerprint}}"
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(_ALIASES, aliases.list),
        web.post(_ALIASES, aliases.create),
        web.get(alias, aliases.get),
        web.put(alias, aliases.put),
        web.patch(alias, aliases.patch),
        web.post(alias, aliases.rename),
        web.delete(alias, aliases.delete),
        web.get(image, handlers.get),
        web.put(image, handlers.put),
        web.patch(image, handlers.patch),
        web.delete(image, handlers.delete),
        web.get(f"{image}/export", handlers.export),
        web.post(f"{image}/refresh", handlers.refresh),
        web.get("/1.0/lxpy/recipes", handlers.recipes),
    ]


def _fingerprint(request: web.Request) -> str:
    return http.segment(request, "fingerprint")


def _wish(request: web.Request) -> Wish:
    """Return what the headers of an upload say of the image."""
    headers = request.headers
    profiles = parse_qsl(headers.get("X-LXD-profiles", ""), keep_blank_values=True)
    aliases = parse_qsl(headers.get("X-LXD-aliases", ""))
    return Wish(
        filename=headers.get("X-LXD-filename", ""),
        public=is_true(headers.get("X-LXD-public")),
        properties=dict(parse_qsl(headers.get("X-LXD-properties", ""), keep_blank_values=True)),
        profiles=[value for key, value in profiles if key == "profile"],
        aliases=[api.ImageAlias(name=value) for key, value in aliases if key == "alias"],
    )


def _expected(request: web.Request) -> str:
    return request.headers.get("X-LXD-fingerprint", "")


async def _decode(head: bytes, chunks: AsyncIterator[bytes]) -> api.ImagesPost:
    data = bytearray(head)
    async for chunk in chunks:
        data += chunk
        if len(data) > _JSON_BYTES:
            raise BadRequest(f"The request's body is longer than {_JSON_BYTES >> 20} MiB")
    try:
        return msgspec.json.decode(data, type=api.ImagesPost)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid request body: {error}") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"Invalid JSON in the request's body: {error}") from error


async def _chain(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


async def _part(reader: MultipartReader) -> tuple[str, AsyncIterator[bytes]]:
    """Return name and content of a form's next part. Raises BadRequest."""
    try:
        part = await reader.next()
    except ValueError as error:
        raise BadRequest(f"Invalid multipart image: {error}") from error
    if not isinstance(part, BodyPartReader):
        raise BadRequest('Invalid multipart image: it must have parts "metadata" and "rootfs"')
    return part.name or "", _content(part)


async def _content(part: BodyPartReader) -> AsyncIterator[bytes]:
    try:
        while chunk := await part.read_chunk(_CHUNK):
            yield chunk
    except (ValueError, AssertionError) as error:
        raise BadRequest(f"Invalid multipart image: it ends early ({error})") from error


async def _rootfs(reader: MultipartReader) -> AsyncIterator[bytes]:
    """Yield the second part, which is looked for when the first has been read."""
    name, content = await _part(reader)
    if name not in ("rootfs", "rootfs.img"):
        raise BadRequest('Invalid multipart image: the second part must be "rootfs"')
    async for chunk in content:
        yield chunk
