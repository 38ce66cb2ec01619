"""Images that this host does not have yet: downloaded or built, once for all who wait.

`images:` is tried in order: the servers of `images.servers`, then the recipe of that name.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

import lxpy
from lxpy.api import images as api
from lxpy.client.fetch import Fetcher, Unreachable
from lxpy.errors import BadRequest, Failed, LxpyError, NotFound, NotSupported
from lxpy.images.build import Builder
from lxpy.images.metadata import Metadata, architecture_name
from lxpy.images.progress import Meter, Progress
from lxpy.images.recipes import Listed, Plan, Recipes
from lxpy.images.remotes.lxd import LxdServer, Place
from lxpy.images.remotes.simplestreams import Offer, SimpleStreams
from lxpy.images.store import ImageStore, Stored
from lxpy.services.server.settings import Settings
from lxpy.threads import in_thread

_PROTOCOLS = ("lxd", "simplestreams", "images", "build")
_WHOLE = re.compile(r"[0-9a-f]{64}")

_NO_MACHINES = "The image is the disk of a virtual machine: lxpy runs containers only"

#: keeps the files of an image for a block; if that fails, those that nobody has go
Keeping = Callable[[str], AbstractAsyncContextManager[None]]

_log = structlog.get_logger()


def is_fingerprint(text: str) -> bool:
    """Tell whether that is a whole fingerprint."""
    return _WHOLE.fullmatch(text) is not None


class Source(Protocol):
    """What a request says of where an image is."""

    alias: str
    fingerprint: str
    server: str
    protocol: str
    secret: str
    certificate: str
    project: str
    image_type: str


@dataclass(frozen=True, slots=True)
class Origin:
    """A place an image can come from; `name` is an alias or a fingerprint there.

    A server of protocol lxd may be known by its `certificate` (PEM) alone, and want a `secret`.
    """

    protocol: str
    server: str
    name: str
    certificate: str = ""
    project: str = ""
    secret: str = ""
    image_type: str = ""
    #: what a server that has several is asked for, "" for what this machine is
    architecture: str = ""

    @property
    def fingerprint(self) -> str:
        """The image's fingerprint, where the name is that."""
        return self.name if is_fingerprint(self.name) else ""

    def update_source(self) -> dict[str, str]:
        """Return it as an image keeps it; a fingerprint is no place to look for newer ones."""
        if self.fingerprint:
            return {}
        found = {"protocol": self.protocol, "server": self.server, "alias": self.name}
        more = {"certificate": self.certificate, "project": self.project}
        return found | {key: value for key, value in more.items() if value}

    @classmethod
    def of(cls, source: Mapping[str, str]) -> Origin:
        """Return the place that an image keeps. Raises BadRequest where it keeps none."""
        if not source.get("alias"):
            raise BadRequest("Image source not found: it was uploaded, or named by its fingerprint")
        return cls(
            source.get("protocol", ""),
            source.get("server", ""),
            source["alias"],
            certificate=source.get("certificate", ""),
            project=source.get("project", ""),
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that is in the store now."""

    stored: Stored
    metadata: Metadata
    properties: Mapping[str, str]
    filename: str


class ImageSources:
    """Servers and recipes. `start` reads the recipes."""

    def __init__(
        self, store: ImageStore, settings: Settings, cache: Path, keeping: Keeping
    ) -> None:
        self._store = store
        self._keeping = keeping
        self._settings = settings
        self._cache = cache / "streams"
        self._builder = Builder(store)
        self._machine = os.uname().machine
        self._recipes = Recipes({}, self._machine)
        self._fetching: dict[Origin, _Shared] = {}

    async def start(self) -> None:
        """Read the recipes. Raises Failed naming a wrong one."""
        self._recipes = await in_thread(Recipes.load, self._machine)

    def recipes(self) -> list[Listed]:
        """Return what can be built."""
        return self._recipes.listed()

    async def offers(self, server: str) -> list[api.Image]:
        """Return the images of a simplestreams server, newest first; an alias is the newest's.

        Raises BadRequest for what is no URL, Unreachable.
        """
        found = await self._server(server).offers()
        named: set[str] = set()
        images = []
        for each in sorted(found, key=lambda offer: offer.serial, reverse=True):
            free = [
                spelled
                for name in each.aliases
                for spelled in (name, f"{name}/{each.properties['architecture']}")
                if spelled not in named
            ]
            named.update(free)
            images.append(_offered(each, free))
        return images

    def origin(self, project: str, source: Source) -> Origin:
        """Check what a request says, and name it the one way, as a project wants it.

        Raises BadRequest, NotFound for a recipe that does not exist, NotSupported.
        """
        name, protocol = source.alias or source.fingerprint, source.protocol or "lxd"
        if protocol not in _PROTOCOLS:
            raise BadRequest(f"Unsupported protocol: {protocol}: use {', '.join(_PROTOCOLS)}")
        if not name:
            raise BadRequest("must specify one of alias or fingerprint for init from image")
        if source.image_type == "virtual-machine":
            raise NotSupported(_NO_MACHINES)
        if protocol == "lxd":
            return _lxd_origin(source, name)
        if protocol == "simplestreams":
            self._server(source.server)
            return self.wanted(project, Origin(protocol, source.server.rstrip("/"), name))
        try:
            return Origin(protocol, "", self._recipes.find(name).alias)
        except LxpyError:
            if protocol == "images" and self._servers():
                return self.wanted(project, Origin(protocol, "", name))
            raise

    def wanted(self, project: str, origin: Origin) -> Origin:
        """Return an origin with the architecture that a project wants of it."""
        wanted = self._settings.get("images.default_architecture", project=project)
        return replace(origin, architecture=wanted)

    async def offered(self, origin: Origin) -> str | None:
        """Return the fingerprint that a server offers now; None where only fetching tells.

        Raises NotFound; Unreachable where neither the server nor what is kept of it can tell.
        """
        if origin.protocol == "simplestreams":
            server = self._server(origin.server, origin.architecture)
            return (await server.find(origin.name)).fingerprint
        if origin.protocol == "lxd":
            return (await _lxd(origin).find(origin.name, origin.image_type)).fingerprint
        return None

    async def fetch(self, origin: Origin, progress: Progress) -> Fetched:
        """Put an image into the store; callers at the same time share one fetching.

        Raises Failed and others that say why no source has it.
        """
        shared = self._fetching.get(origin)
        if shared is None:
            shared = self._fetching[origin] = _Shared(lambda tell: self._fetch(origin, tell))
            shared.task.add_done_callback(lambda done: self._fetched(origin, done))
        return await shared.wait(progress)

    async def fetch_url(self, url: str, progress: Progress) -> Fetched:
        """Put the image behind a URL into the store: its headers say where and what it is."""
        fetcher = Fetcher(f"lxpy {lxpy.__version__}")
        headers = await fetcher.head(url)
        fingerprint, address = headers.get("lxd-image-hash"), headers.get("lxd-image-url")
        if not fingerprint or not address:
            missing = "LXD-Image-URL" if fingerprint else "LXD-Image-Hash"
            raise Failed(f"Missing {missing} header in the reply of {url}")
        async with fetcher.open(address) as download:
            meter = Meter(progress, "download", "rootfs", download.size)
            chunks = _counted(download.chunks, meter)
            stored = await self._store.receive_unified(chunks, fingerprint)
        return Fetched(stored, await self.checked(stored), {}, address.rpartition("/")[2])

    async def checked(self, stored: Stored, *, thorough: bool = True) -> Metadata:
        """Return a new image's metadata. Raises Failed, NotSupported; then its files go."""
        async with self._keeping(stored.fingerprint):
            if await self._store.find(stored.fingerprint) is None:
                raise Failed(
                    f"Image {stored.fingerprint[:12]} was refused a moment ago, when the same "
                    "bytes came by another request"
                )
            found = await self._store.inspect(stored, thorough=thorough)
            if found.type == "virtual-machine":
                raise NotSupported(_NO_MACHINES)
            return found

    def _fetched(self, origin: Origin, task: asyncio.Future[Fetched]) -> None:
        self._fetching.pop(origin, None)
        if not task.cancelled():
            task.exception()  # seen, should every waiter have given up

    async def _fetch(self, origin: Origin, progress: Progress) -> Fetched:
        if origin.protocol == "lxd":
            return await self._copy(origin, progress)
        if origin.protocol == "simplestreams":
            return await self._download(origin.server, origin, progress)
        reasons: list[str] = []
        if origin.protocol == "images":
            for server in self._servers():
                try:
                    return await self._download(server, origin, progress)
                except (NotFound, Unreachable) as error:
                    _log.info("image server has it not", server=server, error=str(error))
                    reasons.append(str(error))
        try:
            plan = self._recipes.find(origin.name)
            if origin.protocol == "build":
                return await self._build(plan, progress)
            return await self.fetch(Origin("build", "", plan.alias), progress)
        except LxpyError as error:
            if not reasons:
                raise
            raise Failed(f"{'; '.join(reasons)}; {error}") from error

    async def _download(self, server: str, origin: Origin, progress: Progress) -> Fetched:
        streams = self._server(server, origin.architecture)
        offer = await streams.find(origin.name)
        stored = await self._store.find(offer.fingerprint)
        if stored is None:
            stored = await streams.download(offer, self._store, progress)
        found = await self.checked(stored)
        filename = offer.parts[0].path.rpartition("/")[2]
        return Fetched(stored, found, offer.properties, filename)

    async def _copy(self, origin: Origin, progress: Progress) -> Fetched:
        """Put an image of another server into the store; its properties are what that says."""
        server = _lxd(origin)
        offer = await server.find(origin.name, origin.image_type)
        stored = await self._store.find(offer.fingerprint)
        if stored is None:
            stored = await server.download(offer, self._store, progress)
        found = await self.checked(stored)
        own = offer.properties or {}
        return Fetched(stored, replace(found, properties={}), own, offer.filename)

    async def _build(self, plan: Plan, progress: Progress) -> Fetched:
        mirror = self._settings.get(f"images.mirror.{plan.distribution}")
        mirror = mirror or os.environ.get(f"LXPY_MIRROR_{plan.distribution.upper()}", "")
        stored = await self._builder.build(plan, mirror, progress)
        found = await self.checked(stored, thorough=False)
        (suffix,) = await self._store.suffixes(stored)
        name = f"{plan.alias.replace('/', '-')}-{plan.architecture}{suffix}"
        return Fetched(stored, found, {}, name)

    def _server(self, server: str, architecture: str = "") -> SimpleStreams:
        wanted = architecture or self._settings.get("images.default_architecture")
        return SimpleStreams(server, self._cache, architecture_name(wanted or self._machine))

    def _servers(self) -> list[str]:
        text = self._settings.get("images.servers")
        return [each.strip() for each in text.split(",") if each.strip()]


class _Shared:
    """Work that several callers wait for; cancelled when the last of them gives up."""

    def __init__(self, work: Callable[[Progress], Awaitable[Fetched]]) -> None:
        self._ears: list[Progress] = []
        self.task = asyncio.ensure_future(work(self._tell))

    async def wait(self, progress: Progress) -> Fetched:
        self._ears.append(progress)
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if len(self._ears) == 1 and not self.task.done():
                self.task.cancel()
                await asyncio.wait([self.task])
            raise
        finally:
            self._ears.remove(progress)

    def _tell(self, stage: str, text: str) -> None:
        for each in self._ears:
            each(stage, text)


def _offered(offer: Offer, aliases: list[str]) -> api.Image:
    """Return an image elsewhere as clients see it; its serial begins with its day."""
    try:
        day = datetime.strptime(offer.serial[:8], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        day = api.NEVER
    return api.Image(
        fingerprint=offer.fingerprint, filename=offer.parts[0].path.rpartition("/")[2],
        size=sum(part.size for part in offer.parts), architecture=offer.architecture,
        type="container", public=True, auto_update=False, cached=False, created_at=day,
        expires_at=api.ENDLESS, uploaded_at=day, last_used_at=api.NEVER,
        properties=offer.properties, profiles=["default"],
        aliases=[api.ImageAlias(name=name) for name in aliases],
    )  # fmt: skip


def _lxd_origin(source: Source, name: str) -> Origin:
    origin = Origin(
        "lxd", source.server.rstrip("/"), name, certificate=source.certificate,
        project=source.project, secret=source.secret, image_type=source.image_type,
    )  # fmt: skip
    _lxd(origin)
    return origin


def _lxd(origin: Origin) -> LxdServer:
    """Return the server. Raises BadRequest where that cannot be one."""
    return LxdServer(Place(origin.server, origin.certificate, origin.project, origin.secret))


async def _counted(chunks: AsyncIterator[bytes], meter: Meter) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        meter.add(len(chunk))
        yield chunk
