"""Image servers that speak LXD's API: images are looked up there, downloaded, and sent there.

Source: LXD docs, "REST API", "Images"; what LXD 5.0.2 sends to its like.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct, field

import lxpy
from lxpy.client.fetch import Fetcher, Parts, Reply, shown
from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.images.progress import Meter, Progress
from lxpy.images.store import ImageStore, Stored
from lxpy.multipart import Form, Part

_CHUNK = 1 << 18
_REPLY_BYTES = 16 << 20


class Offer(Struct, kw_only=True):
    """An image the server has, as far as we want to know it."""

    fingerprint: str
    filename: str = ""
    size: int = 0
    properties: dict[str, str] | None = None


class _Alias(Struct):
    target: str
    type: str = ""


class _Operation(Struct):
    id: str
    status_code: int
    err: str = ""
    metadata: dict[str, Any] | None = None


class _Envelope(Struct):
    type: str = ""
    error: str = ""
    error_code: int = 0
    metadata: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))


@dataclass(frozen=True, slots=True)
class Place:
    """A server and how to get in: `certificate` is the only one it may have (PEM), or empty."""

    server: str
    certificate: str = ""
    project: str = ""
    secret: str = ""


class LxdServer:
    """One server. Raises Unreachable where it does not answer, Failed in its own words."""

    def __init__(self, place: Place) -> None:
        if not place.server.startswith("https://"):
            raise BadRequest(f'Invalid server "{place.server}": write a URL, https://HOST:PORT')
        self._place = place
        self._root = place.server.rstrip("/")
        self._fetcher = Fetcher(f"lxpy {lxpy.__version__}", place.certificate)

    async def find(self, name: str, image_type: str = "") -> Offer:
        """Return the image of that alias or fingerprint (its beginning will do).

        With a secret only the whole fingerprint will do. Raises NotFound.
        """
        if not self._place.secret:
            try:
                alias = await self._get(f"images/aliases/{quote(name, safe='')}", _Alias)
                if image_type in ("", alias.type):
                    name = alias.target
            except NotFound:
                pass  # then it is a fingerprint
        try:
            found: Offer = await self._get(f"images/{quote(name, safe='')}", Offer)
        except NotFound as error:
            raise NotFound(f'Image "{name}" not found on {self._root}') from error
        return found

    async def download(self, offer: Offer, store: ImageStore, progress: Progress) -> Stored:
        """Put an image into the store. Raises Failed when its bytes are not those announced."""
        url = self._url(f"images/{offer.fingerprint}/export")
        async with self._fetcher.request("GET", url) as reply:
            await self._require(reply)
            meter = Meter(progress, "download", "rootfs", offer.size)
            if reply.content_type.startswith("multipart/"):
                form = Parts(url, reply, meter.add)
                return await store.receive_split(
                    form.next("metadata"), form.next("rootfs"), offer.fingerprint
                )
            chunks = _counted(reply.content.iter_chunked(_CHUNK), meter)
            return await store.receive_unified(chunks, offer.fingerprint)

    async def push(
        self, stored: Stored, names: list[str], profiles: list[str], progress: Progress
    ) -> None:
        """Send an image, which the server awaits: `place.secret` says so. Waits for its end."""
        headers = {
            "X-LXD-fingerprint": stored.fingerprint,
            "X-LXD-secret": self._place.secret,
            "X-LXD-filename": names[0],
        }
        if profiles:
            headers["X-LXD-profiles"] = urlencode([("profile", each) for each in profiles])
        async with _body(stored, names) as body:
            meter = Meter(progress, "upload", "image", body.length)
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.length)}
            url, chunks = self._url("images", secret=False), _counted(body.chunks(), meter)
            async with self._fetcher.request(
                "POST", url, body=chunks, headers=headers, patient=True
            ) as reply:
                operation = await self._answer(reply, _Operation)
        await self._wait(operation)

    async def _wait(self, operation: _Operation) -> None:
        secret = (operation.metadata or {}).get("secret", "")
        path = f"/1.0/operations/{operation.id}/wait"
        url = f"{self._root}{path}?{urlencode({'secret': secret, 'timeout': -1})}"
        async with self._fetcher.request("GET", url, patient=True) as reply:
            done = await self._answer(reply, _Operation)
        if done.status_code != 200:
            raise Failed(f"{self._root} did not take the image: {done.err or done.status_code}")

    async def _get(self, path: str, kind: type[Any]) -> Any:
        async with self._fetcher.request("GET", self._url(path)) as reply:
            return await self._answer(reply, kind)

    async def _answer(self, reply: Reply, kind: type[Any]) -> Any:
        """Return the metadata of an answer. Raises NotFound, Failed in the server's words."""
        await self._require(reply)
        data = await _read(reply)
        try:
            return msgspec.json.decode(
                msgspec.json.decode(data, type=_Envelope).metadata, type=kind
            )
        except msgspec.DecodeError as error:
            raise Failed(f"{shown(str(reply.url))} does not answer as LXD does: {error}") from error

    async def _require(self, reply: Reply) -> None:
        if reply.status < 300:
            return
        data = await _read(reply)
        try:
            text = msgspec.json.decode(data, type=_Envelope).error
        except msgspec.DecodeError:
            text = f"HTTP status {reply.status}"
        if reply.status == 404:
            raise NotFound(f"{self._root}: {text}")
        raise Failed(f"{self._root} says: {text}")

    def _url(self, path: str, *, secret: bool = True) -> str:
        query = {
            "project": self._place.project,
            "secret": self._place.secret if secret else "",
        }
        text = urlencode({key: value for key, value in query.items() if value})
        return f"{self._root}/1.0/{path}{'?' if text else ''}{text}"


def _body(stored: Stored, names: list[str]) -> Form:
    """Return an image as the body of an upload."""
    fields = ("metadata", "rootfs") if stored.is_split else ("rootfs",)
    parts = [Part(*each) for each in zip(fields, names, stored.files, strict=True)]
    return Form(parts, bare=not stored.is_split)


async def _read(reply: Reply) -> bytes:
    data = bytearray()
    async for chunk in reply.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > _REPLY_BYTES:
            raise Failed(f"{shown(str(reply.url))} answers with more than {_REPLY_BYTES} bytes")
    return bytes(data)


async def _counted(chunks: AsyncIterator[bytes], meter: Meter) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        meter.add(len(chunk))
        yield chunk
