"""`/1.0/instances/NAME/files?path=`, and the same below a snapshot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qs

import structlog
from aiohttp import web

from lxpy.daemon import http
from lxpy.errors import BadRequest, LxpyError
from lxpy.services.files.files import STALL_S, Entry, Files, Found, Target, Wish
from lxpy.services.files.trees import Trees

_LINK_BYTES = 4095
_OCTAL = re.compile(r"0[0-7]+")
_ID_MAX = (1 << 32) - 2
#: st_mode: clients send the type of a file along with its permissions
_MODE_MAX, _PERMISSIONS = 0o177777, 0o7777
_TAR = "application/x-tar"

_log = structlog.get_logger()


class Handlers:
    """What can be done with a path."""

    def __init__(self, files: Files, trees: Trees) -> None:
        self._files = files
        self._trees = trees

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Reply with a file, a directory's names or a link's target; or with a tree as tar."""
        target = _target(request)
        if _TAR in request.headers.get("Accept", ""):
            async with self._files.found(target, content=False) as found:
                is_directory = found.entry.type == "directory"
                headers = {**_headers(found.entry), "Content-Type": _TAR}
            if is_directory:
                async with self._trees.packed(target) as blocks:
                    return await _stream(request, headers, None, blocks)
        async with self._files.found(target) as found:
            headers = _headers(found.entry)
            if found.entry.type == "directory":
                # Names may be any bytes; JSON has text alone.
                names = [each.encode("utf-8", "surrogateescape") for each in found.names]
                response = http.sync([each.decode("utf-8", "replace") for each in names])
                response.headers.update(headers)
                return response
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Disposition"] = f"inline;filename={_filename(target.path)}"
            return await _stream(request, headers, found.entry.size, _content(found))

    async def head(self, request: web.Request) -> web.StreamResponse:
        """Reply with the headers alone."""
        async with self._files.found(_target(request), content=False) as found:
            response = web.StreamResponse(headers=_headers(found.entry))
            if found.entry.type == "directory":
                response.content_type = "application/json"
            else:
                response.content_length = found.entry.size
            return response

    async def post(self, request: web.Request) -> web.Response:
        """Write a file, make a directory or a link, or unpack a tree."""
        target, wish = _target(request), _wish(request)
        if request.headers.get("Content-Type", "").startswith(_TAR):
            await self._trees.unpack(target, _body(request))
            return http.empty()
        kind = request.headers.get("X-LXD-type") or "file"
        if kind == "file":
            append = _appends(request)
            await self._files.write(target, wish, _body(request), append=append)
        elif kind == "directory":
            await self._files.make_directory(target, wish)
        elif kind == "symlink":
            await self._files.make_link(target, await _link(request), wish)
        else:
            raise BadRequest(f'Bad file type "{kind}": use file, directory or symlink')
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a file or an empty directory."""
        await self._files.remove(_target(request))
        return http.empty()


def routes(files: Files, trees: Trees) -> list[web.RouteDef]:
    """Return the routes of files."""
    handlers = Handlers(files, trees)
    found: list[web.RouteDef] = []
    for path in ("/1.0/instances/{name}", "/1.0/containers/{name}"):
        snapshot = f"{path}/snapshots/{{snapshot}}/files"
        found += [
            web.get(f"{path}/files", handlers.get, allow_head=False),
            web.head(f"{path}/files", handlers.head),
            web.post(f"{path}/files", handlers.post),
            web.delete(f"{path}/files", handlers.delete),
            web.get(snapshot, handlers.get, allow_head=False),
            web.head(snapshot, handlers.head),
        ]
    return found


def _target(request: web.Request) -> Target:
    """Return what the request is about. Raises BadRequest.

    The query is decoded here: a path may have bytes that are no text.
    """
    query = parse_qs(request.rel_url.raw_query_string, errors="surrogateescape")
    path = query.get("path", [""])[0]
    if not path:
        raise BadRequest("Missing path argument")
    if "\0" in path:
        raise BadRequest("Invalid path: it contains a NUL character")
    name = http.segment(request, "name")
    snapshot = request.match_info.get("snapshot", "")
    return Target(http.project(request), name, "/" + path.lstrip("/"), snapshot)


def _headers(entry: Entry) -> dict[str, str]:
    modified = datetime.fromtimestamp(int(entry.modified), UTC)
    return {
        "X-LXD-uid": str(entry.uid),
        "X-LXD-gid": str(entry.gid),
        # Clients take a number without a leading 0 for a decimal one.
        "X-LXD-mode": f"{entry.mode & 0o777:04o}",
        "X-LXD-modified": f"{modified:%Y-%m-%d %H:%M:%S} +0000 UTC",
        "X-LXD-type": entry.type,
    }


def _filename(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2].encode("utf-8", "surrogateescape")
    return "".join(each if each.isprintable() else "?" for each in name.decode("utf-8", "replace"))


async def _content(found: Found) -> AsyncIterator[bytes]:
    if found.entry.type == "symlink":
        yield found.target.encode("utf-8", "surrogateescape")
        return
    async for block in found.blocks():
        yield block


async def _stream(
    request: web.Request, headers: dict[str, str], size: int | None, blocks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send a body as it comes. What goes wrong after its beginning cuts the connection."""
    response = web.StreamResponse(headers=headers)
    if size is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = size
    try:
        first = await anext(blocks, b"")
        await response.prepare(request)
        if first:
            await _send(response, first)
        async for block in blocks:
            await _send(response, block)
        await response.write_eof()
    except (LxpyError, OSError, TimeoutError) as error:
        if not response.prepared:
            raise
        _log.warning("download broken off", url=request.path_qs, error=str(error) or "no progress")
        if request.transport is not None:
            request.transport.abort()
    return response


async def _send(response: web.StreamResponse, block: bytes) -> None:
    async with asyncio.timeout(STALL_S):
        await response.write(block)


def _wish(request: web.Request) -> Wish:
    """Return owner and permissions as the headers have them. Raises BadRequest."""
    mode = _number(request, "X-LXD-mode", _MODE_MAX)
    return Wish(
        _number(request, "X-LXD-uid", _ID_MAX),
        _number(request, "X-LXD-gid", _ID_MAX),
        None if mode is None else mode & _PERMISSIONS,
    )


def _number(request: web.Request, header: str, most: int) -> int | None:
    """Return a header's number, octal with a leading 0; None where it has none, or -1."""
    text = request.headers.get(header, "").strip()
    if text in ("", "-1"):
        return None
    try:
        number = int(text, 8) if _OCTAL.fullmatch(text) else int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise BadRequest(f'Invalid {header} "{text}": write a number from 0 to {most}')
    return number


def _appends(request: web.Request) -> bool:
    word = request.headers.get("X-LXD-write") or "overwrite"
    if word not in ("overwrite", "append"):
        raise BadRequest(f'Bad file write mode "{word}": use overwrite or append')
    return word == "append"


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the request's body as it comes. Raises BadRequest when the client goes away."""
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except ConnectionError as error:
        raise BadRequest("The connection broke before everything was sent") from error


async def _link(request: web.Request) -> str:
    """Return the target of a link that is to be made. Raises BadRequest."""
    data = bytearray()
    async for chunk in _body(request):
        data += chunk
        if len(data) > _LINK_BYTES:
            raise BadRequest(f"A symbolic link's target has at most {_LINK_BYTES} bytes")
    if not data or 0 in data:
        raise BadRequest("Invalid target of a symbolic link: send it as the request's body")
    return data.decode("utf-8", "surrogateescape")
