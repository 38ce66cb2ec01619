"""Volumes of instances as stacks of layers: what costs time is what changed, not what exists.

    SOURCE/containers/NAME/{head, metadata.yaml, templates/}        see chains.py
    SOURCE/containers-snapshots/NAME/SNAPSHOT/{head, ...}
    SOURCE/layers/ID/{upper/, work/}, or, with a size, in a disk of its own: {disk.img, disk/}

A snapshot of a volume that nobody uses takes its topmost layer as it is, and the volume gets a new
one. One that is in use cannot be given another layer: its topmost one is copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import Failed, NotFound
from lxpy.storage import files, projects, trees
from lxpy.storage.drivers import chains, layers, layout, quotas
from lxpy.storage.drivers.base import Quiet
from lxpy.storage.drivers.chains import Chains
from lxpy.storage.volume import Layers, Pool, Usage, Volume
from lxpy.threads import in_thread, in_thread_or_undo

_PARTS = ("upper", "work/index")


class Stacked:
    """The volumes of instances of one pool."""

    def __init__(self, pool: Pool, layers_of: Chains) -> None:
        self.pool = pool
        self._chains = layers_of
        self.in_use: set[Path] = set()

    def place(self, volume: Volume) -> Path:
        """Return the directory of a volume or snapshot."""
        return layout.volume_path(self.pool, volume)

    # Making

    async def create(self, volume: Volume, image: str | None) -> None:
        """Make a volume on an image, or an empty one. Raises Conflict, NotFound."""
        if image is None:
            base = await in_thread_or_undo(self._empty_base, self._chains.discard)
        else:
            base = await self.image(image)
        await self._on_top(volume, base, None)

    @asynccontextmanager
    async def filling(self, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume or snapshot of the files that the block writes."""
        place = self.place(volume)
        new = layout.unfinished(place)
        await in_thread(_make_directory, new)
        try:
            if await in_thread(place.exists):
                raise layout.taken(place)
            yield new
            base = await in_thread_or_undo(
                lambda: self._base_of(new / "rootfs"), self._chains.discard
            )
            if volume.snapshot:
                await self._named(volume, base, new)
            else:
                await self._on_top(volume, base, new)
        finally:
            await in_thread(shutil.rmtree, new, True)
            await in_thread(layout.remove_if_empty, place.parent)

    async def copy(self, source: Volume, target: Volume, quiet: Quiet | None) -> None:
        """Copy a volume or snapshot within the pool."""
        place = self.place(source)
        base = await self._kept(source, quiet)
        if not source.snapshot:
            await in_thread(files.syncfs, base)
        await self._on_top(target, base, place)

    async def copy_to(
        self, source: Volume, there: Stacked, target: Volume, quiet: Quiet | None
    ) -> None:
        """Copy a volume or snapshot to another pool, layer by layer.

        Raises NotFound when the image at the bottom is not there.
        """
        base = await self._kept(source, quiet)
        try:
            copied = await self._copied_to(base, there)
            await there._on_top(target, copied, self.place(source))
        finally:
            await in_thread(self._chains.discard, base)

    async def _copied_to(self, base: Path, there: Stacked) -> Path:
        """Copy layers to another pool and return the topmost copy."""
        stack = [base, *await in_thread(chains.stacked_below, base)]
        below: Path | None = None
        if stack[-1].parent.name == "images":
            below = await there.image(stack.pop().name)
        try:
            for layer in reversed(stack):
                below = await there._new_layer(below)
                with layout.full_told(there.pool):
                    await trees.copy(layer, below, _PARTS[:1], None)
                await in_thread(layers.settle_elsewhere, below)
        except BaseException:
            if below is not None:
                await in_thread(there._chains.discard, below)
            raise
        assert below is not None
        return below

    async def image(self, fingerprint: str) -> Path:
        """Return an image's directory. Raises NotFound when it is not unpacked here."""
        found = layout.image_path(self.pool, fingerprint)
        if not await in_thread((found / "rootfs").is_dir):
            name = fingerprint[:12]
            raise NotFound(f'Image {name} is not in storage pool "{self.pool.name}"')
        return found

    async def _on_top(self, volume: Volume, base: Path, metadata: Path | None) -> None:
        """Make a volume or snapshot whose files are those of `base`, which does not change."""
        if volume.snapshot:
            await self._named(volume, base, metadata)
            return
        try:
            layer = await self.writable(volume, base)
        except BaseException:
            await in_thread(self._chains.discard, base)
            raise
        await self._named(volume, layer, metadata)

    async def _named(self, volume: Volume, layer: Path, metadata: Path | None) -> None:
        """Make a volume or snapshot with this head; without it, the layer goes if it can."""
        place = self.place(volume)
        try:
            await in_thread_or_undo(
                lambda: self._name(place, layer, metadata),
                lambda _: self._chains.forget_place(place),
            )
        except BaseException:
            await in_thread(self._chains.discard, layer)
            raise

    async def writable(self, volume: Volume, base: Path) -> Path:
        """Make a layer to write to, held to the volume's size, on top of another."""
        size = volume.size_bytes
        kind = await quotas.kind_for(self.pool, size)
        layer = await self._new_layer(base)
        try:
            if size is not None and kind == "loop":
                await quotas.make_disk(layer, size)
                await quotas.mount(layer)
            await in_thread(_make_upper, layer, chains.tree_of(base))
            if size is not None and kind == "loop":
                await quotas.unmount(layer)
            elif size is not None:
                await in_thread(projects.limit, layer, size)
        except BaseException:
            await self._throw_away(layer)
            raise
        return layer

    async def _new_layer(self, below: Path | None) -> Path:
        return await in_thread_or_undo(lambda: self._chains.new(below), self._chains.discard)

    async def _throw_away(self, layer: Path) -> None:
        await quotas.unmount(layer)
        await in_thread(self._chains.discard, layer)

    def _name(self, place: Path, layer: Path, metadata: Path | None) -> None:
        """Give a volume or snapshot with this head its name. Raises Conflict."""
        with layout.told(self.pool), self._chains.settled():  # a first count would see it, too
            new = layout.unfinished(place)
            _make_directory(new)
            try:
                os.symlink(os.path.relpath(layer, place), new / chains.HEAD)
                if metadata is not None:
                    _copy_metadata(metadata, new)
                layout.claim(new, place)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                layout.remove_if_empty(place.parent)
                raise
            self._chains.take(layer)

    def _empty_base(self) -> Path:
        with layout.told(self.pool):
            base = self._chains.new(None)
            os.mkdir(base / "upper", 0o755)
            return base

    def _base_of(self, rootfs: Path) -> Path:
        """Make a layer without another below it of a whole tree, which is moved there."""
        base = self._chains.new(None)
        files.syncfs(base)
        os.rename(rootfs, base / "upper")
        return base

    # Snapshots

    async def snapshot(self, snapshot: Volume, quiet: Quiet | None) -> None:
        """Make a snapshot. Raises NotFound, Conflict."""
        place = self.place(snapshot)
        if await in_thread(place.exists):
            raise layout.taken(place)
        layer = await self._kept(snapshot.whole, quiet)
        if not layout.is_hidden(snapshot):
            # Before it is told of: a power cut must not leave a snapshot of empty files.
            await in_thread(files.syncfs, layer)
        await self._named(snapshot, layer, self.place(snapshot.whole))

    async def restore(self, volume: Volume, snapshot: str) -> None:
        """Put a new layer on the snapshot's, in place of the volume's own."""
        place, source = self.place(volume), self.place(volume.at(snapshot))
        base = await in_thread(chains.head_of, source)
        if base is None:
            raise NotFound(f'Snapshot "{volume.name}/{snapshot}" not found')
        old = await in_thread(self._head, volume)
        layer = await self.writable(volume, base)
        try:
            await quotas.unmount(old)
            await in_thread(self._restored, place, source, layer)
        except BaseException:
            await in_thread(self._chains.discard, layer)
            raise

    def _restored(self, place: Path, source: Path, layer: Path) -> None:
        _copy_metadata(source, place)
        self._chains.point(place, layer)
        files.fsync_directory(place)

    async def _kept(self, volume: Volume, quiet: Quiet | None) -> Path:
        """Return a layer that has what a volume or snapshot has, and does not change."""
        head = await in_thread(self._head, volume)
        if volume.snapshot:
            return head
        if self.place(volume) in self.in_use or await in_thread(quotas.has_disk, head):
            return await self._copied(volume, head, quiet)
        if await in_thread(_is_untouched, head):
            below = await in_thread(chains.below_of, head)
            assert below is not None
            return below
        await in_thread(lambda: layers.complete_links(layers_of(head)))
        layer = await self.writable(volume, head)
        await in_thread(self._chains.point, self.place(volume), layer)
        await in_thread(shutil.rmtree, head / "work", True)
        return head

    async def _copied(self, volume: Volume, head: Path, quiet: Quiet | None) -> Path:
        """Copy the layer that a volume writes to."""
        in_use = self.place(volume) in self.in_use
        layer = await self._new_layer(await in_thread(chains.below_of, head))
        try:
            await in_thread(_make_directory, layer / "work")
            async with quotas.mounted(head, already=in_use) as source:
                with layout.full_told(self.pool):
                    await trees.copy(source, layer, _PARTS, quiet if in_use else None)
            await in_thread(_settle, layer)
        except BaseException:
            await in_thread(self._chains.discard, layer)
            raise
        return layer

    # Changing and removing

    async def delete(self, volume: Volume) -> None:
        """Remove a volume with its snapshots, or one snapshot."""
        place = self.place(volume)
        head = await in_thread(chains.head_of, place)
        if head is not None and not volume.snapshot:
            await quotas.unmount(head)
        self.in_use.discard(place)
        await in_thread(self._delete, volume)

    def _delete(self, volume: Volume) -> None:
        place = self.place(volume)
        places = [place]
        above = layout.snapshots_path(self.pool, volume)
        if not volume.snapshot and above.is_dir():
            places += sorted(above.iterdir())
        with layout.told(self.pool), self._chains.settled():
            for each in places:
                self._chains.forget_place(each)
            layout.remove_if_empty(above)

    async def resize(self, volume: Volume, size_bytes: int | None) -> None:
        """Hold a volume to another size."""
        head = await in_thread(self._head, volume)
        in_use = self.place(volume) in self.in_use
        has_disk = await in_thread(quotas.has_disk, head)
        if has_disk and size_bytes and await in_thread(quotas.can_resize, head, size_bytes):
            async with quotas.mounted(head, already=in_use):
                await quotas.resize_disk(head, size_bytes)
            return
        if not has_disk and await quotas.kind(self.pool) == "project":
            await in_thread(projects.resize, head, size_bytes)
            return
        if not has_disk and size_bytes is None:
            return
        await quotas.kind_for(self.pool, size_bytes)
        if in_use:
            raise quotas.only_at_rest(self.pool, volume)
        await self._move(volume, head)

    async def _move(self, volume: Volume, head: Path) -> None:
        """Move what a volume has written into a disk of its own, or out of it."""
        below = await in_thread(chains.below_of, head)
        assert below is not None, "a layer that is written to stands on another"
        layer = await self.writable(volume, below)
        try:
            async with quotas.mounted(head) as source, quotas.mounted(layer) as target:
                with layout.full_told(self.pool):
                    await trees.copy(source, target, _PARTS, None)
                await in_thread(layers.settle_copy, target)
        except BaseException:
            await self._throw_away(layer)
            raise
        await in_thread(self._chains.point, self.place(volume), layer)

    # Use

    async def mount(self, volume: Volume) -> None:
        """Have a volume ready to be written to."""
        head = await in_thread(self._head, volume)
        if volume.snapshot or head.parent.name == "images":
            return
        if await in_thread(quotas.has_disk, head):
            await quotas.mount(head)
        await quotas.keep_reserve(self.pool, head)
        await in_thread(lambda: _make_directory(quotas.inside(head) / "work"))
        self.in_use.add(self.place(volume))

    async def unmount(self, volume: Volume) -> None:
        """Let a volume rest."""
        head = await in_thread(chains.head_of, self.place(volume))
        if head is not None and not volume.snapshot:
            await quotas.give_reserve_back(head)
            await quotas.unmount(head)
        self.in_use.discard(self.place(volume))

    async def rootfs(self, volume: Volume) -> Layers:
        """Return the layers of a volume or snapshot. Raises NotFound, Failed."""
        head = await in_thread(self._head, volume)
        if not volume.snapshot:
            return await in_thread(layers_of, head)
        below = await in_thread(chains.stacked_below, head)
        return Layers(tuple(str(chains.tree_of(each)) for each in (head, *below)), None)

    async def usage(self, volume: Volume) -> Usage | None:
        """Return what a volume with a size has written; at rest, what its disk takes."""
        if not volume.size_bytes or volume.snapshot:
            return None
        head = await in_thread(self._head, volume)
        if not await in_thread(quotas.has_disk, head):
            is_held = await quotas.kind(self.pool) == "project"
            return await in_thread(projects.usage, head) if is_held else None
        if self.place(volume) in self.in_use:
            return await in_thread(quotas.usage, head)
        return await in_thread(quotas.taken, head)

    async def image_of(self, volume: Volume) -> str | None:
        """Return the image at the bottom of the stack."""
        return await in_thread(lambda: chains.image_of(self._head(volume)))

    def metadata(self, volume: Volume) -> Path:
        """Return the directory that has metadata.yaml: the volume's own, or the image's."""
        place = self.place(volume)
        if (place / layout.METADATA[0]).exists():
            return place
        image = chains.image_of(chains.head_of(place))
        return place if image is None else layout.image_path(self.pool, image)

    def _head(self, volume: Volume) -> Path:
        head = chains.head_of(self.place(volume))
        if head is None:
            what = "Snapshot" if volume.snapshot else "Volume"
            raise NotFound(f'{what} "{volume.label}" is not in storage pool "{self.pool.name}"')
        if not head.is_dir():
            raise Failed(f'Layer {head.name} of "{volume.label}" is missing: {head}')
        return head


def layers_of(head: Path) -> Layers:
    """Return a layer that is written to with all that is below it."""
    lower = [str(chains.tree_of(each)) for each in chains.stacked_below(head)]
    return Layers(tuple(lower), str(quotas.inside(head)))


def _make_upper(layer: Path, lower: Path) -> None:
    """Make the two directories of a layer to write to."""
    directory = quotas.inside(layer)
    os.mkdir(directory / "work", 0o700)
    os.mkdir(directory / "upper", 0o700)
    # The top directory of an overlay is the upper's own.
    files.copy_attributes(lower, directory / "upper")
    found = os.lstat(lower)
    os.utime(directory / "upper", ns=(found.st_atime_ns, found.st_mtime_ns))


def _is_untouched(head: Path) -> bool:
    """Tell that nothing has been written to a layer."""
    upper, below = head / "upper", chains.below_of(head)
    if below is None or os.listdir(upper):
        return False
    mine, other = os.lstat(upper), os.lstat(chains.tree_of(below))
    return (mine.st_mode, mine.st_uid, mine.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _settle(layer: Path) -> None:
    """Make a copy of a layer one that others can stand on."""
    layers.settle_copy(layer)
    layers.complete_links(layers_of(layer))
    shutil.rmtree(layer / "work")


def _copy_metadata(source: Path, target: Path) -> None:
    """Make the metadata that an instance has of its own that of another place."""
    for name in layout.METADATA:
        old, new = source / name, target / name
        if new.is_dir() and not new.is_symlink():
            shutil.rmtree(new)
        elif os.path.lexists(new):
            new.unlink()
        if old.is_dir():
            shutil.copytree(old, new, symlinks=True)
        elif old.exists():
            shutil.copy2(old, new, follow_symlinks=False)


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
