"""Files over HTTP, as streams: what the daemon downloads images with (the only asyncio here)."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from lxpy.errors import BadRequest, Failed, NotFound

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=30)
_PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=None)
_CHUNK = 1 << 18


class Unreachable(Failed):
    """A server that does not answer, or not now."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"Cannot fetch {shown(url)}: {reason}")


@dataclass(frozen=True, slots=True)
class Download:
    """A reply whose body is still to come; `size` is 0 where the server does not say it."""

    headers: dict[str, str]
    size: int
    chunks: AsyncIterator[bytes]


def shown(url: str) -> str:
    """Return a URL as errors may show it: its query may hold a secret."""
    return url.partition("?")[0]


#: an answer whose status may be anything
Reply = aiohttp.ClientResponse


class Fetcher:
    """Fetches files. Raises NotFound, Unreachable, or Failed with the server's status.

    Of a server with a `certificate` (PEM) nothing but that certificate is believed.
    """

    def __init__(self, agent: str, certificate: str = "") -> None:
        self._agent = agent
        self._trust = pinned(certificate) if certificate else True

    async def read(self, url: str, max_bytes: int) -> bytes:
        """Return a file whole. Raises Failed when it is larger than `max_bytes`."""
        data = bytearray()
        async with self.open(url) as download:
            async for chunk in download.chunks:
                data += chunk
                if len(data) > max_bytes:
                    raise Failed(f"Cannot fetch {shown(url)}: it is larger than {max_bytes} bytes")
        return bytes(data)

    async def head(self, url: str) -> dict[str, str]:
        """Return the reply's headers, their names in lower case."""
        async with self.request("HEAD", url) as reply:
            _check(url, reply.status, reply.reason or "")
            return {key.lower(): value for key, value in reply.headers.items()}

    @asynccontextmanager
    async def open(
        self, url: str, count: Callable[[int], None] | None = None
    ) -> AsyncIterator[Download]:
        """Open a file; `count` is told the bytes of each piece that has come."""
        async with self.request("GET", url) as reply:
            _check(url, reply.status, reply.reason or "")
            headers = {key.lower(): value for key, value in reply.headers.items()}
            size = reply.content_length or 0
            yield Download(headers, size, _chunks(url, reply, count))

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> AsyncIterator[Reply]:
        """Send a request, whose body may be a stream; the answer may say anything.

        A `patient` one waits for the answer for ever. Raises Unreachable, Failed.
        """
        sent = {"User-Agent": self._agent, "Accept-Encoding": "identity", **(headers or {})}
        options: dict[str, Any] = {"data": body, "headers": sent, "ssl": self._trust}
        try:
            async with aiohttp.ClientSession(
                timeout=_PATIENT if patient else _TIMEOUT, trust_env=True, auto_decompress=False
            ) as session:
                async with session.request(method, url, **options) as reply:
                    yield reply
        except TimeoutError as error:
            raise Unreachable(url, "no answer in time") from error
        except aiohttp.InvalidURL as error:
            raise Failed(f"Cannot fetch {shown(url)}: it is no URL") from error
        except aiohttp.ServerFingerprintMismatch as error:
            reason = "its certificate is another than the one that was given"
            raise Failed(f"Cannot trust {shown(url)}: {reason}") from error
        except aiohttp.ClientError as error:
            raise Unreachable(url, str(error) or type(error).__name__) from error


class Parts:
    """The parts of a form that a server answers with, one after the other."""

    def __init__(self, url: str, reply: Reply, count: Callable[[int], None]) -> None:
        self._url = url
        self._reader = aiohttp.MultipartReader.from_response(reply)
        self._count = count

    async def next(self, name: str) -> AsyncIterator[bytes]:
        """Yield the next part, which must be of that name. Raises Failed, Unreachable."""
        try:
            part = await self._reader.next()
            if not isinstance(part, aiohttp.BodyPartReader) or part.name != name:
                raise Failed(f'Cannot fetch {shown(self._url)}: its next part is not "{name}"')
            while chunk := await part.read_chunk(_CHUNK):
                self._count(len(chunk))
                yield chunk
        except (ValueError, AssertionError) as error:
            raise Unreachable(self._url, f"it ends early: {error}") from error
        except TimeoutError as error:
            raise Unreachable(self._url, "the server fell silent") from error
        except aiohttp.ClientError as error:
            raise Unreachable(self._url, f"the connection broke: {error}") from error


def pinned(certificate: str) -> aiohttp.Fingerprint:
    """Return what believes in one certificate. Raises BadRequest."""
    try:
        der = ssl.PEM_cert_to_DER_cert(certificate.strip())
    except ValueError as error:
        raise BadRequest(f"Invalid certificate of the server: {error}") from error
    return aiohttp.Fingerprint(hashlib.sha256(der).digest())


def _check(url: str, status: int, reason: str) -> None:
    if status == 200:
        return
    if status == 404:
        raise NotFound(f"Cannot fetch {shown(url)}: the server has no such file")
    if status >= 500 or status == 429:
        raise Unreachable(url, f"the server says {status} {reason}")
    raise Failed(f"Cannot fetch {shown(url)}: the server says {status} {reason}")


async def _chunks(
    url: str, reply: Reply, count: Callable[[int], None] | None
) -> AsyncIterator[bytes]:
    try:
        async for chunk in reply.content.iter_chunked(_CHUNK):
            if count is not None:
                count(len(chunk))
            yield chunk
    except TimeoutError as error:
        raise Unreachable(url, "the server fell silent") from error
    except aiohttp.ClientError as error:
        raise Unreachable(url, f"the connection broke: {error}") from error
