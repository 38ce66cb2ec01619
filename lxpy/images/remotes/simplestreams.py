"""Image servers that speak simplestreams: an index, lists of products, files by their hashes.

Index and lists are kept on disk for an hour, and longer when the server does not answer.
Source: LXD docs, "Remote image servers"; the streams of the public image servers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, field

import lxpy
from lxpy.client.fetch import Fetcher, Unreachable
from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.images.metadata import architecture_name
from lxpy.images.progress import Meter, Progress
from lxpy.images.store import ImageStore, Stored
from lxpy.threads import in_thread

_FRESH_S = 3600
_LIST_BYTES = 128 << 20
_INDEX = "streams/v1/index.json"
_META = ("lxd.tar.xz", "incus.tar.xz")
_T = TypeVar("_T", bound=Struct)
_COMBINED = ("lxd_combined.tar.gz", "incus_combined.tar.gz")


class _Item(Struct):
    ftype: str = ""
    path: str = ""
    size: int = 0
    sha256: str = ""
    combined_sha256: str = ""
    combined_squashfs_sha256: str = ""
    combined_rootxz_sha256: str = ""


class _Version(Struct):
    label: str = ""
    items: dict[str, _Item] = field(default_factory=dict)


class _Product(Struct):
    aliases: str = ""
    arch: str = ""
    os: str = ""
    release: str = ""
    release_title: str = ""
    version: str = ""
    variant: str = ""
    versions: dict[str, _Version] = field(default_factory=dict)
    lxd_requirements: dict[str, str] = field(default_factory=dict)
    requirements: dict[str, str] = field(default_factory=dict)


class _Products(Struct):
    products: dict[str, _Product] = field(default_factory=dict)


class _Entry(Struct):
    datatype: str = ""
    path: str = ""
    products: list[str] = field(default_factory=list)


class _Index(Struct):
    index: dict[str, _Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of an image: where it is below the server's address, and its bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Offer:
    """An image the server has: one part when it is unified, else metadata and rootfs."""

    fingerprint: str
    aliases: tuple[str, ...]
    architecture: str
    serial: str
    properties: dict[str, str]
    parts: tuple[Part, ...]


class SimpleStreams:
    """One server. `architecture` is the kernel's name of what is wanted."""

    def __init__(self, server: str, cache: Path, architecture: str) -> None:
        if not server.startswith(("https://", "http://")):
            raise BadRequest(f'Invalid image server "{server}": write a URL, https://...')
        self.server = server.rstrip("/")
        self._cache = cache
        self._architecture = architecture
        self._fetcher = Fetcher(f"lxpy {lxpy.__version__}")

    async def find(self, name: str) -> Offer:
        """Return the newest image with that alias, or fingerprint (its beginning will do).

        Raises NotFound; Unreachable where neither server nor cache can tell.
        """
        offers = await self.offers()
        for wanted in _spellings(name, self._architecture):
            found = [each for each in offers if wanted in each.aliases]
            if found:
                return max(found, key=lambda each: each.serial)
        by_hash = [each for each in offers if len(name) >= 12 and each.fingerprint.startswith(name)]
        if not by_hash:
            raise NotFound(f'Image "{name}" for {self._architecture} not found on {self.server}')
        return by_hash[0]

    async def offers(self) -> list[Offer]:
        """Return every image of this architecture that the server has. Raises as `find`."""
        index = await self._load(_INDEX, _Index)
        found: list[Offer] = []
        for entry in index.index.values():
            if entry.datatype == "image-downloads" and entry.products:
                products = await self._load(entry.path, _Products)
                found += await in_thread(_offers, products, self._architecture)
        return found

    async def download(self, offer: Offer, store: ImageStore, progress: Progress) -> Stored:
        """Put an image into the store. Raises Failed when its bytes are not those announced."""
        names = ("rootfs",) if len(offer.parts) == 1 else ("metadata", "rootfs")
        streams = [
            self._stream(part, Meter(progress, "download", name, part.size))
            for part, name in zip(offer.parts, names, strict=True)
        ]
        if len(streams) == 1:
            return await store.receive_unified(streams[0], offer.fingerprint)
        return await store.receive_split(streams[0], streams[1], offer.fingerprint)

    async def _stream(self, part: Part, meter: Meter) -> AsyncIterator[bytes]:
        async with AsyncExitStack() as stack:
            url = f"{self.server}/{part.path}"
            download = await stack.enter_async_context(self._fetcher.open(url, meter.add))
            async for chunk in download.chunks:
                yield chunk

    async def _load(self, path: str, kind: type[_T]) -> _T:
        """Return a list: from the cache while it is fresh, or when the server is silent."""
        url = f"{self.server}/{path}"
        kept = self._cache / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
        data, age_s = await in_thread(_read, kept)
        if data is None or age_s > _FRESH_S:
            try:
                fetched = await self._fetcher.read(url, _LIST_BYTES)
                result = await in_thread(_decode, url, fetched, kind)
            except Unreachable:
                if data is None:
                    raise
            else:
                await in_thread(_keep, kept, fetched)
                return result
        assert data is not None
        return await in_thread(_decode, url, data, kind)


def _decode(url: str, data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise Failed(f"{url} is no list of images: {error}") from error


def _read(path: Path) -> tuple[bytes | None, float]:
    """Return what was kept, and its age in seconds (blocking)."""
    try:
        with path.open("rb") as file:
            return file.read(), abs(time.time() - os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None, 0.0


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.rename(path)


def _spellings(name: str, architecture: str) -> Iterator[str]:
    """Yield the aliases that a name may mean: as it is, without architecture, with "/default"."""
    yield name
    rest, _, last = name.rpartition("/")
    if rest and architecture_name(last) == architecture:
        yield rest
        name = rest
    yield f"{name}/default"
    if name.endswith("/default"):
        yield name.removesuffix("/default")


def _offers(products: _Products, architecture: str) -> list[Offer]:
    """Return the images of one list (blocking: thousands of them)."""
    squashfs = shutil.which("unsquashfs") is not None
    return [
        offer
        for product in products.products.values()
        if architecture_name(product.arch) == architecture
        for serial, version in product.versions.items()
        if (offer := _offer(product, serial, version, squashfs=squashfs)) is not None
    ]


def _offer(product: _Product, serial: str, version: _Version, *, squashfs: bool) -> Offer | None:
    """Return a version as an image for containers, or None where it has none."""
    chosen = _choose(version.items, squashfs=squashfs)
    if chosen is None:
        return None
    fingerprint, kind, items = chosen
    if any(not item.path or item.path.startswith("/") for item in items):
        return None
    title = product.release_title or product.release
    label = f" ({version.label})" if version.label else ""
    properties = {
        "architecture": product.arch,
        "description": f"{product.os} {title} {product.arch}{label} ({serial})",
        "label": version.label,
        "os": product.os,
        "release": product.release,
        "serial": serial,
        "type": kind,
        "variant": product.variant,
        "version": product.version,
    }
    for key, value in {**product.requirements, **product.lxd_requirements}.items():
        properties[f"requirements.{key}"] = value
    return Offer(
        fingerprint=fingerprint,
        aliases=tuple(filter(None, (each.strip() for each in product.aliases.split(",")))),
        architecture=architecture_name(product.arch),
        serial=serial,
        properties={key: value for key, value in properties.items() if value},
        parts=tuple(Part(item.path, item.size) for item in items),
    )


def _choose(
    items: dict[str, _Item], *, squashfs: bool
) -> tuple[str, str, tuple[_Item, ...]] | None:
    """Return fingerprint, kind and files of the best form the image comes in."""
    by_type = {item.ftype: item for item in items.values()}
    meta = next((by_type[each] for each in _META if each in by_type), None)
    if meta is not None:
        if squashfs and "squashfs" in by_type and meta.combined_squashfs_sha256:
            return meta.combined_squashfs_sha256, "squashfs", (meta, by_type["squashfs"])
        combined = meta.combined_rootxz_sha256 or meta.combined_sha256
        if "root.tar.xz" in by_type and combined:
            return combined, "root.tar.xz", (meta, by_type["root.tar.xz"])
    for kind in _COMBINED:
        if kind in by_type and by_type[kind].sha256:
            return by_type[kind].sha256, kind, (by_type[kind],)
    return None
