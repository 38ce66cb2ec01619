"""A distribution out of a package of the Python index: the disk of a virtual machine, opened.

Options of a recipe: `package`, `package_version`, `package_sha256` and `package_architecture` of
the wheel, `disk`, the name of the qcow2 file in it, possibly with `*`. The disk holds one ext4
file system and no partitions; it is read by debugfs, nothing is mounted.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

from lxpy.errors import Failed, MissingTool, NotSupported
from lxpy.images import qcow2
from lxpy.images.tools.base import Work, broken, follow
from lxpy.threads import in_thread

_UNREACHED = ("Failed to establish a new connection", "Connection to", "Could not fetch URL",
              "No matching distribution", "ConnectTimeoutError")  # fmt: skip


async def bootstrap(work: Work) -> None:
    """Fill work.rootfs. Raises Failed, NotSupported or MissingTool."""
    plan = work.plan
    if plan.option("package_architecture") != plan.architecture:
        raise NotSupported(
            f"Cannot build {plan.alias}: package {plan.option('package')} is only for "
            f"{plan.option('package_architecture')}, this host is {plan.architecture}"
        )
    wheel = await _download(work)
    work.tell("opening the disk")
    disk, plain = work.scratch / "disk.qcow2", work.scratch / "disk"
    await in_thread(_extract, work, wheel, disk)
    await in_thread(qcow2.convert, disk, plain)
    work.tell("copying the files")
    ended = await follow(
        # quotes are debugfs' own: the path has none, it is made of our directory and a number
        ("debugfs", "-R", f'rdump / "{work.rootfs}"', str(plain)),
        lambda _: None,
        package="e2fsprogs",
        purpose=f"building {plan.alias}",
        timeout_s=600,
    )
    complaints = [line for line in ended.lines if not line.startswith("debugfs ")]
    if ended.status != 0 or complaints:
        raise broken(plan, "debugfs", ended, complaints[0] if complaints else "")
    await in_thread(disk.unlink)
    await in_thread(plain.unlink)


async def _download(work: Work) -> Path:
    plan = work.plan
    if await in_thread(importlib.util.find_spec, "pip") is None:
        raise MissingTool("pip", "python3-pip", f"building {plan.alias}")
    package = f"{plan.option('package')}=={plan.option('package_version')}"
    wanted = work.scratch / "requirements.txt"
    await in_thread(wanted.write_text, f"{package} --hash=sha256:{plan.option('package_sha256')}\n")
    work.tell(f"downloading {package}")
    ended = await follow(
        (
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-input", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir",
            "--timeout=8", "--retries=1", f"--dest={work.scratch}", f"--requirement={wanted}",
        ),
        lambda _: None,
        package="python3-pip",
        purpose=f"building {plan.alias}",
    )  # fmt: skip
    if ended.status != 0:
        if any(each in line for line in ended.lines for each in _UNREACHED):
            raise Failed(
                f"Cannot build {plan.alias}: the Python package index did not give {package}: "
                f"{ended.lines[-1]}"
            )
        raise broken(plan, "pip download", ended)
    (wheel,) = await in_thread(lambda: list(work.scratch.glob("*.whl")))
    return wheel


def _extract(work: Work, wheel: Path, target: Path) -> None:
    """Take the disk out of the wheel (blocking)."""
    pattern = work.plan.option("disk")
    with zipfile.ZipFile(wheel) as archive:
        names = fnmatch.filter(archive.namelist(), pattern)
        if len(names) != 1:
            raise Failed(f"Cannot build {work.plan.alias}: {wheel.name} has no {pattern}")
        with archive.open(names[0]) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    wheel.unlink()
