"""What handlers share: bodies, query parameters, ETags, and the replies of the envelope."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import web

from lxpy.api import envelope
from lxpy.daemon.filters import Filter
from lxpy.errors import BadRequest, Forbidden, PreconditionFailed
from lxpy.events.lifecycle import url
from lxpy.operations.registry import Operation
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.services.server import access
from lxpy.units import is_true

T = TypeVar("T")

_BODY_BYTES = 16 << 20
_BODY_S = 60
#: where a request has the projects that there are
SCOPES = "scopes"
_encode = msgspec.json.Encoder().encode
_etag_encode = msgspec.json.Encoder(order="sorted").encode


async def body(request: web.Request, kind: type[T]) -> T:
    """Decode the JSON body as `kind`, whatever content type it claims (curl claims a form).

    Raises BadRequest naming the field at fault.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.content.iter_any():
                data += chunk
                if len(data) > _BODY_BYTES:
                    raise BadRequest(f"The request's body is longer than {_BODY_BYTES >> 20} MiB")
    except TimeoutError:
        raise BadRequest(f"The request's body has not come within {_BODY_S} s") from None
    try:
        return _decoded(data, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid request body: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"Invalid JSON in the request's body: {error}") from error


def _decoded(data: bytes | bytearray, kind: type[T]) -> T:
    """Decode JSON; a null in a place that has none counts as left out, as it does for Go."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        if b"null" not in data:
            raise
        return msgspec.convert(_given(msgspec.json.decode(data)), type=kind)


def _given(value: object) -> object:
    """Return a JSON value without the members that are null."""
    if isinstance(value, dict):
        return {key: _given(each) for key, each in value.items() if each is not None}
    return [_given(each) for each in value] if isinstance(value, list) else value


def segment(request: web.Request, name: str) -> str:
    """Return a part of the path, unescaped."""
    return request.match_info[name]


def project(request: web.Request) -> str:
    """Return the project that the request is about. Raises Forbidden."""
    found = request.query.get("project") or "default"
    access.check(found)
    return found


def owner(request: web.Request, feature: Feature) -> str:
    """Return the project whose images, profiles ... count in the request's. Raises Forbidden."""
    scopes: Scopes = request[SCOPES]
    return scopes.owner(feature, project(request))


def owner_or_all(request: web.Request, feature: Feature) -> str | None:
    """Return as `owner`, None for all projects. Raises BadRequest, Forbidden."""
    return None if project_or_all(request) is None else owner(request, feature)


def project_or_all(request: web.Request) -> str | None:
    """Return the project, None for all of them. Raises BadRequest when both are given."""
    if not is_true(request.query.get("all-projects")):
        return project(request)
    if request.query.get("project"):
        raise BadRequest("Cannot specify a project when requesting all projects")
    if access.is_restricted():
        raise Forbidden("Restricted certificates see one project at a time: name it by project=")
    return None


def recursion(request: web.Request) -> int:
    """Return the depth asked for: 0 URLs, 1 objects, 2 objects with their state.

    What is no number is 0, as LXD has it.
    """
    try:
        return int((request.query.get("recursion") or "0").partition(";")[0])
    except ValueError:
        return 0


def integer(request: web.Request, name: str, default: int) -> int:
    """Return a whole number from the query. Raises BadRequest."""
    text = request.query.get(name) or ""
    try:
        return int(text) if text else default
    except ValueError:
        raise BadRequest(f'Invalid {name} "{text}": write a whole number') from None


def chosen(request: web.Request, objects: Iterable[T]) -> list[T]:
    """Return the objects that the request's `filter` lets through. Raises Failed."""
    text = request.query.get("filter") or ""
    if not text.strip():
        return list(objects)
    matches = Filter.parse(text)
    return [each for each in objects if matches(msgspec.to_builtins(each))]


def listing(
    request: web.Request, prefix: str, objects: Iterable[T], *, name: str = "name"
) -> web.Response:
    """Reply with URLs below `prefix`, or with the objects: as recursion says, filtered."""
    found = chosen(request, objects)
    if recursion(request):
        return sync(found)
    scope = project(request)
    return sync(
        [
            url(f"{prefix}/{quote(getattr(each, name), safe='')}", getattr(each, "project", scope))
            for each in found
        ]
    )


def etag(writable: Any) -> str:
    """Return the digest of an object's writable part."""
    return hashlib.sha256(_etag_encode(writable)).hexdigest()


def check_match(request: web.Request, writable: Any) -> None:
    """Raise PreconditionFailed when If-Match names another version than `writable`."""
    wanted = request.headers.get("If-Match", "").strip().strip('"')
    if not wanted:
        return
    have = etag(writable)
    if wanted != have:
        raise PreconditionFailed(
            f"ETag doesn't match: {wanted} vs {have} (it was changed meanwhile: read it again)"
        )


def sync(
    metadata: Any, *, etag_of: Any = None, location: str = "", status: int = 0
) -> web.Response:
    """Reply with a result; 201 when it says where the new object is.

    `etag_of` is the writable part that the ETag stands for.
    """
    headers = {}
    if etag_of is not None:
        headers["ETag"] = f'"{etag(etag_of)}"'
    if location:
        headers["Location"] = location
    code = status or (201 if location else 200)
    return _json(envelope.sync(metadata), code, headers)


def empty() -> web.Response:
    """Reply that it is done."""
    return sync({})


def created(location: str, scope: str = "default") -> web.Response:
    """Reply that an object was made, and where it is."""
    return sync(None, location=url(location, scope))


def accepted(operation: Operation) -> web.Response:
    """Reply that work has begun."""
    headers = {"Location": url(operation.url, operation.project)}
    return _json(envelope.accepted(operation.url, operation.describe()), 202, headers)


def failed(code: int, text: str) -> web.Response:
    """Reply with an error."""
    return _json(envelope.error(code, text), code, {"X-Content-Type-Options": "nosniff"})


def _json(reply: envelope.Reply, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(
        body=_encode(reply) + b"\n", status=status, headers=headers,
        content_type="application/json",
    )  # fmt: skip


__all__ = [
    "SCOPES", "accepted", "body", "check_match", "chosen", "created", "empty",
    "etag", "failed", "integer", "listing", "owner", "owner_or_all", "project",
    "project_or_all", "recursion", "segment",
    "sync",
]  # fmt: skip
