"""`/1.0/images`, their aliases, and the recipes of what can be built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
from aiohttp import BodyPartReader, MultipartReader, web

from lxpy.api import images as api
from lxpy.daemon import auth, http
from lxpy.errors import BadRequest, Forbidden
from lxpy.multipart import Form, Part
from lxpy.operations.registry import Operation
from lxpy.services.images.images import Exported, Images, Viewer
from lxpy.services.images.publish import SOURCES, Publish
from lxpy.services.images.rows import Wish, lasting
from lxpy.services.projects.scopes import Feature
from lxpy.units import is_true

_PATH = "/1.0/images"
_ALIASES = f"{_PATH}/aliases"
_CHUNK = 1 << 18
_JSON_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Arrival:
    """What the headers of an upload say; `waiter` is a secret to wait with, for strangers."""

    wish: Wish
    fingerprint: str
    waiter: str = ""


class Handlers:
    """The handlers of images."""

    def __init__(self, images: Images, publish: Publish) -> None:
        self._images = images
        self._publish = publish

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        found = await self._images.everything(
            http.owner_or_all(request, Feature.IMAGES), _viewer(request)
        )
        return http.listing(request, _PATH, found, name="fingerprint")

    async def create(self, request: web.Request) -> web.Response:
        """Receive an image, or start fetching, building or publishing one."""
        arrival = self._arrival(request)
        if request.content_type == "multipart/form-data":
            return http.accepted(await self._split(request, arrival))
        chunks = request.content.iter_chunked(_CHUNK)
        head = await anext(chunks, b"")
        # curl sends JSON as a form, other clients send images as JSON: the body tells
        is_json = request.content_type == "application/json" or head.lstrip()[:1] == b"{"
        if is_json and _viewer(request).trusted:
            wish = await _decode(head, chunks)
            if wish.source.type in SOURCES:
                return http.accepted(await self._publish.create(http.project(request), wish))
            return http.accepted(
                await self._images.create(http.owner(request, Feature.IMAGES), wish)
            )
        operation = await self._images.upload_unified(
            http.owner(request, Feature.IMAGES), _chain(head, chunks), arrival.wish,
            arrival.fingerprint,
            waiter=arrival.waiter,
        )  # fmt: skip
        return http.accepted(operation)

    def _arrival(self, request: web.Request) -> _Arrival:
        """Return what an upload brings; strangers need the secret of a token. Raises Forbidden."""
        headers = request.headers
        fingerprint = headers.get("X-LXD-fingerprint", "")
        secret = headers.get("X-LXD-secret", "")
        token = self._images.tokens.redeem(http.owner(request, Feature.IMAGES), fingerprint, secret)
        if token is not None:
            return _Arrival(_awaited(_wish(request), token), fingerprint, token_hex(32))
        if not _viewer(request).trusted:
            raise Forbidden("not authorized")
        return _Arrival(_wish(request), fingerprint)

    async def _split(self, request: web.Request, arrival: _Arrival) -> Operation:
        reader = await request.multipart()
        name, meta = await _part(reader)
        if name != "metadata":
            raise BadRequest('Invalid multipart image: the first part must be "metadata"')
        return await self._images.upload_split(
            http.owner(request, Feature.IMAGES), meta, _rootfs(reader), arrival.wish,
            arrival.fingerprint,
            waiter=arrival.waiter,
        )  # fmt: skip

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one image."""
        project, viewer = http.owner(request, Feature.IMAGES), _viewer(request)
        found, writable = await self._images.get(project, _fingerprint(request), viewer)
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace an image's writable part."""
        wish = await http.body(request, api.ImagePut)
        check = partial(http.check_match, request)
        await self._images.put(
            http.owner(request, Feature.IMAGES), _fingerprint(request), wish, check
        )
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.ImagePatch)
        check = partial(http.check_match, request)
        await self._images.patch(
            http.owner(request, Feature.IMAGES), _fingerprint(request), wish, check
        )
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete an image."""
        operation = await self._images.delete(
            http.owner(request, Feature.IMAGES), _fingerprint(request)
        )
        return http.accepted(operation)

    async def refresh(self, request: web.Request) -> web.Response:
        """Fetch an image anew."""
        operation = await self._images.refresh(
            http.owner(request, Feature.IMAGES), _fingerprint(request)
        )
        return http.accepted(operation)

    async def secret(self, request: web.Request) -> web.Response:
        """Hand out a token for an image."""
        operation = await self._images.secret(
            http.owner(request, Feature.IMAGES), _fingerprint(request)
        )
        return http.accepted(operation)

    async def push(self, request: web.Request) -> web.Response:
        """Send an image to another server."""
        wish = await http.body(request, api.ImageExportPost)
        operation = await self._images.push(
            http.owner(request, Feature.IMAGES), _fingerprint(request), wish
        )
        return http.accepted(operation)

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Reply with an image's file, or its two as a form."""
        project, viewer = http.owner(request, Feature.IMAGES), _viewer(request)
        found = await self._images.export(project, _fingerprint(request), viewer)
        return await send_export(request, found)

    async def offers(self, request: web.Request) -> web.Response:
        """Reply with the images of a simplestreams server, filtered."""
        found = await self._images.sources.offers(request.query.get("server", ""))
        return http.sync(http.chosen(request, found))

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
        self._images = images
        self._aliases = images.aliases

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects; which there are is not for strangers."""
        if not _viewer(request).trusted:
            raise Forbidden("not authorized")
        return http.listing(
            request, _ALIASES, await self._aliases.list(http.owner(request, Feature.IMAGES))
        )

    async def create(self, request: web.Request) -> web.Response:
        """Name an image."""
        wish, project = (
            await http.body(request, api.AliasesPost),
            http.owner(request, Feature.IMAGES),
        )
        await self._aliases.create(project, wish)
        return http.created(f"{_ALIASES}/{quote(wish.name, safe='')}", project)

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one alias."""
        name = http.segment(request, "name")
        found = await self._images.alias(
            http.owner(request, Feature.IMAGES), name, _viewer(request)
        )
        return http.sync(found, etag_of=found)

    async def put(self, request: web.Request) -> web.Response:
        """Replace description and target."""
        wish = await http.body(request, api.AliasPut)
        check = partial(http.check_match, request)
        name = http.segment(request, "name")
        await self._aliases.put(http.owner(request, Feature.IMAGES), name, wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.AliasPatch)
        check = partial(http.check_match, request)
        name = http.segment(request, "name")
        await self._aliases.patch(http.owner(request, Feature.IMAGES), name, wish, check)
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename an alias."""
        wish, project = await http.body(request, api.AliasPost), http.owner(request, Feature.IMAGES)
        await self._aliases.rename(project, http.segment(request, "name"), wish.name)
        return http.created(f"{_ALIASES}/{quote(wish.name, safe='')}", project)

    async def delete(self, request: web.Request) -> web.Response:
        """Remove an alias."""
        await self._aliases.delete(
            http.owner(request, Feature.IMAGES), http.segment(request, "name")
        )
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
    fields = zip(("metadata", "rootfs"), found.files, strict=True)
    async with Form([Part(field, *file) for field, file in fields]) as form:
        response = web.StreamResponse(headers={"Content-Type": form.content_type})
        response.content_length = form.length
        await response.prepare(request)
        async for chunk in form.chunks():
            await response.write(chunk)
        await response.write_eof()
        return response


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
        web.post(f"{image}/export", handlers.push),
        web.post(f"{image}/refresh", handlers.refresh),
        web.post(f"{image}/secret", handlers.secret),
        web.get("/1.0/lxpy/offers", handlers.offers),
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
        profiles=[value for key, value in profiles if key == "profile"] or ["default"],
        aliases=[api.ImageAlias(name=value) for key, value in aliases if key == "alias"],
    )


def _awaited(wish: Wish, token: dict[str, Any]) -> Wish:
    """Return what an upload says, completed by what was said when its token was handed out."""
    return replace(
        wish,
        public=wish.public or token.get("public", False),
        properties={**(token.get("properties") or {}), **wish.properties},
        all_properties=bool(token.get("properties")),
        aliases=[*wish.aliases, *(token.get("aliases") or [])],
        expires_at=wish.expires_at or lasting(token.get("expires_at")),
    )


def _viewer(request: web.Request) -> Viewer:
    return Viewer(auth.identify(request).trusted, request.query.get("secret", ""))


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
