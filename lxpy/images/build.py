"""Building an image from a recipe: bootstrap, finish, pack, into the store."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lxpy.errors import Failed
from lxpy.images import metadata
from lxpy.images.metadata import Metadata, Template
from lxpy.images.pack import default_packer, pack
from lxpy.images.progress import Progress, silent
from lxpy.images.recipes import Plan
from lxpy.images.store import ImageStore, Stored
from lxpy.images.tools import TOOLS, Work
from lxpy.programs import run
from lxpy.threads import in_thread

_COMMAND_TIMEOUT_S = 300
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Builder:
    """Builds images in the store's workspace."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def build(self, plan: Plan, mirror: str = "", progress: Progress = silent) -> Stored:
        """Build an image and put it into the store; `mirror` is the URL set for it, or "".

        Raises Failed, naming the mirror that does not answer or the program that failed,
        NotSupported and MissingTool. Nothing is left of a build that failed or was cancelled.
        """
        if plan.needs_mirror and not mirror:
            raise Failed(
                f"Cannot build {plan.alias}: {plan.tool} knows no package mirror of {plan.os}, "
                f"set the server's key images.mirror.{plan.distribution} to the URL of one"
            )
        if os.geteuid() != 0:
            raise Failed(f"Cannot build {plan.alias}: only root can make its files")
        work = Work(plan, *(await in_thread(_prepare, self._store.workspace())), mirror, progress)
        try:
            await TOOLS[plan.tool](work)
            return await self._finish(work)
        finally:
            await in_thread(_clear, work.scratch)

    async def _finish(self, work: Work) -> Stored:
        plan = work.plan
        work.tell("finishing")
        await _run_commands(work.rootfs, plan)
        bundle = work.scratch / "bundle"
        await in_thread(dress, work.rootfs, plan)
        await in_thread(describe, bundle, plan)
        how = await in_thread(default_packer)
        image = work.scratch / f"image{how.suffix}"
        await pack(bundle, work.rootfs, image, how, work.progress)
        return await self._store.adopt(image)


def _prepare(scratch: Path) -> tuple[Path, Path]:
    rootfs = scratch / "rootfs"
    rootfs.mkdir(mode=0o755, parents=True)
    rootfs.chmod(0o755)
    scratch.chmod(0o700)
    return rootfs.resolve(), scratch.resolve()


async def _run_commands(rootfs: Path, plan: Plan) -> None:
    """Run the recipe's lines, and switch services of systemd on, by the guest's own programs."""
    units = [each for each in plan.services if "/" not in each]
    commands: list[tuple[str, ...]] = [("/bin/sh", "-c", line) for line in plan.commands]
    if units:
        commands.append(("systemctl", "enable", "--quiet", *units))
    for command in commands:
        await run(
            "chroot", str(rootfs), *command, timeout_s=_COMMAND_TIMEOUT_S,
            env={"PATH": _PATH, "HOME": "/root", "TMPDIR": "/tmp"},
        )  # fmt: skip


def dress(rootfs: Path, plan: Plan) -> None:
    """Remove what is not wanted; write files, links, services of OpenRC (blocking)."""
    for pattern in plan.remove:
        for path in rootfs.glob(pattern.lstrip("/")):
            _remove(path)
    for name, file in plan.files.items():
        path = _place(rootfs, name)
        path.write_text(file.content)
        path.chmod(file.bits)
    links = dict(plan.links)
    for service in (each for each in plan.services if "/" in each):
        name = PurePosixPath(service).name
        if not os.path.lexists(rootfs / "etc/init.d" / name):
            raise Failed(f'Cannot build {plan.alias}: there is no service "{name}" in it')
        links[f"/etc/runlevels/{service}"] = f"/etc/init.d/{name}"
    for name, target in links.items():
        _place(rootfs, name).symlink_to(target)


def _place(rootfs: Path, name: str) -> Path:
    """Return where a file goes, with nothing in its place.

    Raises Failed when a link on the way leads elsewhere: on this host, it would be another file.
    """
    path = rootfs / name.lstrip("/")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.parent.resolve() != path.parent:
        raise Failed(f"{name}: a link in the new root file system leads elsewhere")
    if os.path.lexists(path):
        _remove(path)
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def describe(bundle: Path, plan: Plan) -> None:
    """Write metadata.yaml and the templates (blocking)."""
    now = time.time()
    templates = bundle / "templates"
    templates.mkdir(parents=True)
    listed = []
    for path, text in plan.templates.items():
        name = f"{path.strip('/').replace('/', '-')}.tpl"
        (templates / name).write_text(text)
        listed.append(Template(path, name, ("create", "copy", "rename")))
    properties: Mapping[str, str] = {
        "architecture": plan.architecture,
        **plan.properties,
        "serial": time.strftime("%Y%m%d_%H:%M", time.gmtime(now)),
    }
    (bundle / "metadata.yaml").write_text(
        metadata.dump(Metadata(plan.architecture, int(now), 0, properties, tuple(listed)))
    )


def _clear(scratch: Path) -> None:
    """Remove the workspace; never what something is still mounted in (blocking)."""
    with open("/proc/self/mountinfo") as file:
        mounted = [line.split()[4] for line in file if line.split()[4].startswith(f"{scratch}/")]
    if mounted:
        raise Failed(f"{mounted[-1]} is still mounted: unmount it, and delete {scratch}")
    shutil.rmtree(scratch, ignore_errors=True)
