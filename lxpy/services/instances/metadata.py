"""What instances keep of their images' metadata: metadata.yaml and the files in templates/.

An image is not trusted: nothing here follows a link that it brings along. On pools whose instances
share their image's files, a change gives the instance a copy of its own first.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import UNSET

from lxpy.api.metadata import ImageMetadata, ImageMetadataPatch, ImageTemplate
from lxpy.errors import BadRequest, Failed, InvalidConfig, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.images import kept, metadata
from lxpy.images.kept import FILE, MAX_BYTES, TEMPLATES
from lxpy.images.metadata import Metadata, Template
from lxpy.instances.model import Instance
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.storage.pools import Pools
from lxpy.threads import in_thread

#: what a change is written to first: no template bears the name of a directory
_NEW = f".{FILE}.new"

Check = Callable[[ImageMetadata], None]


class InstanceMetadata:
    """Reads and changes them."""

    def __init__(
        self, store: InstanceStore, locks: Locks, pools: Pools, lifecycle: Lifecycle
    ) -> None:
        self._store = store
        self._locks = locks
        self._pools = pools
        self._lifecycle = lifecycle

    async def get(self, project: str, name: str) -> ImageMetadata:
        """Return an instance's metadata, empty when it has none. Raises NotFound, Failed."""
        instance = self._store.get(project, name)
        async with self._places(instance) as (found, _):
            current = await in_thread(_load, found)
        self._tell("instance-metadata-retrieved", instance)
        return current

    async def put(self, project: str, name: str, wish: ImageMetadata, check: Check) -> None:
        """Replace it; `check` is given what there was. Raises NotFound, BadRequest, Failed."""
        await self._change(project, name, lambda _: wish, check)

    async def patch(self, project: str, name: str, wish: ImageMetadataPatch, check: Check) -> None:
        """Change what is given. Raises NotFound, BadRequest, Failed."""
        await self._change(project, name, lambda old: _merged(old, wish), check)

    async def _change(
        self, project: str, name: str, wish: Callable[[ImageMetadata], ImageMetadata], check: Check
    ) -> None:
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            async with self._places(instance) as (found, own):
                current = await in_thread(_load, found)
                check(current)
                text = metadata.dump(_checked(wish(current)))
                await in_thread(_adopt, found, own)
                await in_thread(_write, own, own / FILE, text.encode())
        self._tell("instance-metadata-updated", instance)

    async def templates(self, project: str, name: str) -> list[str]:
        """Return the names of an instance's templates. Raises NotFound."""
        instance = self._store.get(project, name)
        async with self._places(instance) as (found, _):
            return await in_thread(kept.names, found)

    async def template(self, project: str, name: str, file: str) -> bytes:
        """Return the text of a template. Raises NotFound, BadRequest, Failed."""
        instance = self._store.get(project, name)
        _check_name(file)
        async with self._places(instance) as (found, _):
            data = await in_thread(kept.read, found, f"{TEMPLATES}/{file}")
        if data is None:
            raise NotFound(f'Template "{file}" not found')
        self._tell("instance-metadata-template-retrieved", instance, file)
        return data

    async def put_template(self, project: str, name: str, file: str, data: bytes) -> None:
        """Make or replace a template. Raises NotFound, BadRequest."""
        self._store.get(project, name)
        _check_name(file)
        if len(data) > MAX_BYTES:
            raise BadRequest(f"A template is not longer than {MAX_BYTES} bytes")
        async with self._changed(project, name) as (instance, own):
            await in_thread(_write, own, own / TEMPLATES / file, data)
        self._tell("instance-metadata-template-created", instance, file)

    async def delete_template(self, project: str, name: str, file: str) -> None:
        """Remove a template. Raises NotFound, BadRequest."""
        self._store.get(project, name)
        _check_name(file)
        async with self._changed(project, name) as (instance, own):
            try:
                await in_thread((own / TEMPLATES / file).unlink)
            except FileNotFoundError:
                raise NotFound(f'Template "{file}" not found') from None
        self._tell("instance-metadata-template-deleted", instance, file)

    @asynccontextmanager
    async def _changed(self, project: str, name: str) -> AsyncIterator[tuple[Instance, Path]]:
        """Hold an instance while its templates are changed; they are its own by then."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            async with self._places(instance) as (found, own):
                await in_thread(_adopt, found, own)
                yield instance, own

    @asynccontextmanager
    async def _places(self, instance: Instance) -> AsyncIterator[tuple[Path, Path]]:
        """Hold an instance's volume; yield where its metadata are, and where its own would be."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume, storage = volume_of(instance), self._pools.storage
        async with storage.held(pool, volume):
            yield await storage.metadata(pool, volume), storage.directory(pool, volume)

    def _tell(self, action: str, instance: Instance, file: str = "") -> None:
        path = f"/1.0/instances/{instance.name}/metadata" + (f"/{TEMPLATES}" if file else "")
        context = {"path": file} if file else None
        self._lifecycle.emit(action, path, instance.project, context)


def _load(directory: Path) -> ImageMetadata:
    """Return what metadata.yaml says. Raises Failed."""
    data = kept.read(directory, FILE)
    if data is None:
        return ImageMetadata(properties={}, templates={})
    try:
        found = metadata.kept(data.decode())
    except UnicodeDecodeError as error:
        raise Failed(f"Could not parse metadata.yaml: {error}") from error
    return ImageMetadata(
        architecture=found.architecture,
        creation_date=found.creation_date,
        expiry_date=found.expiry_date,
        properties=dict(found.properties),
        templates={
            each.path: ImageTemplate(
                when=list(each.when), create_only=each.create_only, template=each.template,
                properties=dict(each.properties),
            )
            for each in found.templates
        },
    )  # fmt: skip


def _merged(old: ImageMetadata, wish: ImageMetadataPatch) -> ImageMetadata:
    properties, templates = old.properties or {}, old.templates or {}
    if wish.properties is not UNSET:
        properties = properties | (wish.properties or {})
    if wish.templates is not UNSET:
        templates = templates | (wish.templates or {})
    return ImageMetadata(
        architecture=old.architecture if wish.architecture is UNSET else wish.architecture,
        creation_date=old.creation_date if wish.creation_date is UNSET else wish.creation_date,
        expiry_date=old.expiry_date if wish.expiry_date is UNSET else wish.expiry_date,
        properties=properties,
        templates=templates,
    )


def _checked(wish: ImageMetadata) -> Metadata:
    """Return metadata as they are written. Raises InvalidConfig for what no start could use."""
    templates = tuple(
        Template(path, each.template, tuple(each.when or ()), each.create_only,
                 each.properties or {})
        for path, each in (wish.templates or {}).items()
    )  # fmt: skip
    for each in templates:
        try:
            metadata.check_template(each)
        except Failed as error:
            raise InvalidConfig(str(error)) from error
    return Metadata(
        architecture=wish.architecture,
        creation_date=wish.creation_date,
        expiry_date=wish.expiry_date,
        properties=wish.properties or {},
        templates=templates,
    )


def _check_name(file: str) -> None:
    if not file:
        raise BadRequest("missing path argument")
    if not metadata.is_template_name(file):
        raise BadRequest("Invalid template filename")


def _adopt(found: Path, own: Path) -> None:
    """Give an instance metadata of its own where it still has its image's."""
    place = own / TEMPLATES
    if found != own:
        shutil.rmtree(place, ignore_errors=True)  # of a copy that was interrupted
        place.mkdir(mode=0o755)
        for name in kept.names(found):
            data = kept.read(found, f"{TEMPLATES}/{name}")
            if data is not None:
                (place / name).write_bytes(data)
        text = kept.read(found, FILE)
        if text is not None:  # the last: with it the instance has its own
            _write(own, own / FILE, text)
    elif place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
        place.mkdir(mode=0o755)


def _write(own: Path, path: Path, data: bytes) -> None:
    """Put a whole file in its place, or none."""
    new = own / _NEW
    try:
        new.unlink(missing_ok=True)
        new.write_bytes(data)
        new.rename(path)
    except BaseException as error:
        new.unlink(missing_ok=True)
        if isinstance(error, IsADirectoryError):
            raise BadRequest("Invalid template filename") from error
        raise
