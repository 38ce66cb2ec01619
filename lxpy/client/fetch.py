"""Files over HTTP, as streams: what the daemon downloads images with (the only asyncio here)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from lxpy.errors import Failed, NotFound

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=30)
_CHUNK = 1 << 18


class Unreachable(Failed):
    """A server that does not answer, or not now."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"Cannot fetch {url}: {reason}")


@dataclass(frozen=True, slots=True)
class Download:
    """A reply whose body is still to come; `size` is 0 where the server does not say it."""

    headers: dict[str, str]
    size: int
    chunks: AsyncIterator[bytes]


class Fetcher:
    """Fetches files. Raises NotFound, Unreachable, or Failed with the server's status."""

    def __init__(self, agent: str) -> None:
        self._agent = agent

    async def read(self, url: str, max_bytes: int) -> bytes:
        """Return a file whole. Raises Failed when it is larger than `max_bytes`."""
        data = bytearray()
        async with self.open(url) as download:
            async for chunk in download.chunks:
                data += chunk
                if len(data) > max_bytes:
                    raise Failed(f"Cannot fetch {url}: it is larger than {max_bytes} bytes")
        return bytes(data)

    async def head(self, url: str) -> dict[str, str]:
        """Return the reply's headers, their names in lower case."""
        async with self._request("HEAD", url) as reply:
            return {key.lower(): value for key, value in reply.headers.items()}

    @asynccontextmanager
    async def open(
        self, url: str, count: Callable[[int], None] | None = None
    ) -> AsyncIterator[Download]:
        """Open a file; `count` is told the bytes of each piece that has come."""
        async with self._request("GET", url) as reply:
            headers = {key.lower(): value for key, value in reply.headers.items()}
            size = reply.content_length or 0
            yield Download(headers, size, _chunks(url, reply, count))

    @asynccontextmanager
    async def _request(self, method: str, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with aiohttp.ClientSession(
                timeout=_TIMEOUT,
                headers={"User-Agent": self._agent},
                trust_env=True,
                auto_decompress=False,
            ) as session:
                headers = {"Accept-Encoding": "identity"}
                async with session.request(method, url, headers=headers) as reply:
                    _check(url, reply.status, reply.reason or "")
                    yield reply
        except TimeoutError as error:
            raise Unreachable(url, "no answer in time") from error
        except aiohttp.InvalidURL as error:
            raise Failed(f"Cannot fetch {url}: it is no URL") from error
        except aiohttp.ClientError as error:
            raise Unreachable(url, str(error) or type(error).__name__) from error


def _check(url: str, status: int, reason: str) -> None:
    if status == 200:
        return
    if status == 404:
        raise NotFound(f"Cannot fetch {url}: the server has no such file")
    if status >= 500 or status == 429:
        raise Unreachable(url, f"the server says {status} {reason}")
    raise Failed(f"Cannot fetch {url}: the server says {status} {reason}")


async def _chunks(
    url: str, reply: aiohttp.ClientResponse, count: Callable[[int], None] | None
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
