"""Mounts: the rootfs, the host's disks, and the kernel's filesystems.

What comes from the host is mounted in a mount namespace of the initial user namespace, before the
container's own is entered: only then are read-only, nodev and friends locked against its root.
"""

from __future__ import annotations

import errno
import os
import stat

from lxpy.kernel import files, mounts, namespaces, overlay
from lxpy.kernel.libc import AT_FDCWD
from lxpy.kernel.processes import file_owner
from lxpy.runtime.fs import Confined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.plain import Disk, Rootfs, Spec

#: Where in the scratch directory the rootfs is.
ROOT = "root"
_RAW_OPTIONS = {
    "ro": mounts.RDONLY, "nosuid": mounts.NOSUID, "nodev": mounts.NODEV, "noexec": mounts.NOEXEC,
    "noatime": mounts.NOATIME,
}  # fmt: skip
_PROPAGATION = {"shared": mounts.MS_SHARED, "slave": mounts.MS_SLAVE,
                "unbindable": mounts.MS_UNBINDABLE}  # fmt: skip


def enter_scratch(stage: str) -> None:
    """Mount a small filesystem of ours on `stage` and make it the working directory.

    The container grows in it: the rootfs at ROOT, each disk at `place(N)`. Relative paths go on to
    work in the next mount namespace, whatever its root may see of the host.
    """
    mounts.mount("scratch", stage, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0755")
    os.chdir(stage)
    os.mkdir(ROOT, 0o755)


def place(index: int) -> str:
    """Return where in the scratch directory the disk of that number waits."""
    return f"disk{index}"


def mount_rootfs(
    rootfs: Rootfs, userns_fd: int, uid: int, gid: int, *, nodes: bool = False
) -> Confined:
    """Mount the rootfs at ROOT, ids mapped, and return it opened; nodev unless `nodes` count."""
    flags = 0 if nodes else mounts.NODEV
    if rootfs["type"] == "overlay":
        fd = _overlay(rootfs["lower"], rootfs["root"], userns_fd, uid, gid, flags)
    else:
        fd = idmapped(rootfs["path"], userns_fd, flags)
    mounts.attach(fd, "rootfs", path=ROOT)
    os.close(fd)
    return Confined.at(ROOT)


def idmapped(
    path: str, userns_fd: int, flags: int, *,
    source: int = AT_FDCWD, recursive: bool = False, hears: bool = False,
) -> int:  # fmt: skip
    """Return a detached mount of `path`, its ids mapped by `userns_fd` (-1: as they are).

    `source` may be what is at the path, open. In a nested installation they stay as they are: its
    instances have its own ids.
    One that `hears` gets what is mounted below `path` later on.
    Raises OSError, EINVAL where the filesystem cannot map ids.
    """
    propagation = mounts.MS_SLAVE if hears else mounts.MS_PRIVATE
    is_open = source != AT_FDCWD
    fd = mounts.clone_tree("" if is_open else path, dir_fd=source, recursive=recursive)
    try:
        if userns_fd >= 0 and not namespaces.is_nested():
            flags |= mounts.IDMAP
        mounts.set_attributes(
            fd, path, flags, userns_fd=userns_fd, propagation=propagation, recursive=recursive
        )
    except OSError:
        os.close(fd)
        raise
    return fd


def _overlay(lower: list[str], root: str, userns_fd: int, uid: int, gid: int, flags: int) -> int:
    layers = [idmapped(each, userns_fd, mounts.RDONLY | mounts.NODEV) for each in lower]
    writable = idmapped(root, userns_fd, mounts.NODEV)
    try:
        # The work directory is made by the mounter: with unmapped ids overlayfs cannot, and
        # silently becomes read-only.
        with file_owner(uid, gid):
            try:
                fd = _stack(layers, writable, overlay.options(), flags)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                fd = _stack(layers, writable, overlay.options(index=False), flags)
    finally:
        for each in (*layers, writable):
            os.close(each)
    if mounts.is_readonly(fd):
        raise OSError(errno.EROFS, f"overlay({root}): the work directory is not usable")
    return fd


def _stack(layers: list[int], writable: int, options: mounts.Options, flags: int) -> int:
    fs = mounts.start("overlay")
    upper = os.open("upper", os.O_PATH | os.O_DIRECTORY, dir_fd=writable)
    work = os.open("work", os.O_PATH | os.O_DIRECTORY, dir_fd=writable)
    try:
        for layer in layers:
            mounts.configure(fs, "lowerdir+", layer)
        mounts.configure(fs, "upperdir", upper)
        mounts.configure(fs, "workdir", work)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
        return _stack_by_path(layers, writable, options, flags)
    else:
        return _finish(fs, options, flags)
    finally:
        for each in (fs, upper, work):
            os.close(each)


def _stack_by_path(layers: list[int], writable: int, options: mounts.Options, flags: int) -> int:
    """Stack on kernels (before 6.13) whose overlayfs takes attached paths alone.

    All of it stays in this mount namespace, and the paths are gone afterwards.
    """
    fs = mounts.start("overlay")
    attached: list[str] = []
    try:
        for layer in (*layers, writable):
            path = f"layer{len(attached)}"
            os.mkdir(path, 0o755)
            mounts.attach(layer, path, path=path)
            attached.append(path)
        *below, top = attached
        mounts.configure(fs, "lowerdir", ":".join(below))
        mounts.configure(fs, "upperdir", f"{top}/upper")
        mounts.configure(fs, "workdir", f"{top}/work")
        return _finish(fs, options, flags)
    finally:
        os.close(fs)
        for path in attached:
            mounts.unmount(path, mounts.MNT_DETACH)


def _finish(fs: int, options: mounts.Options, flags: int) -> int:
    for key, value in options.items():
        mounts.configure(fs, key, value)
    return mounts.finish(fs, "overlay", flags)


def make_mount_points(root: Confined, uid: int, gid: int) -> None:
    """See to it that /dev, /proc and /sys are directories of the rootfs itself."""
    with file_owner(uid, gid):
        for name in ("dev", "proc", "sys"):
            os.close(root.plain_directory(name))


def mount_systemd() -> str:
    """Mount the v1 hierarchy `name=systemd` in the scratch directory; return where.

    For an old guest on a host without one. The supervisor mounts the same for itself.
    """
    os.mkdir("systemd", 0o755)
    mounts.mount("cgroup", "systemd", "cgroup", data="none,name=systemd")
    return "systemd"


def hears(disk: Disk) -> bool:
    """Tell whether a disk shows what is mounted below its source later on."""
    return disk["propagation"].removeprefix("r") in ("shared", "slave")


def open_if_there(disk: Disk, userns_fd: int) -> int:
    """Return the detached mount of a disk's source; -1 when it is not there and need not be.

    Of one that hears: before the mounts of this namespace are made private.
    """
    try:
        return open_disk(disk, userns_fd)
    except FileNotFoundError:
        if disk["required"]:
            raise
        return -1


def prepare_disk(disk: Disk, index: int, fd: int) -> bool:
    """Mount a host file or directory at its place in the scratch directory, its flags set.

    The next mount namespace copies it with these flags locked. False when it is not there: -1.
    """
    if fd < 0:
        return False
    try:
        _make_like(fd, place(index))
        mounts.attach(fd, disk["source"], path=place(index))
    finally:
        os.close(fd)
    return True


def _make_like(fd: int, path: str) -> None:
    """Make an empty directory or file to mount what `fd` is on."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def attach_disk(root: Confined, disk: Disk, index: int) -> None:
    """Show a prepared disk at its target: as the container's root, in its mount namespace.

    The clone keeps the locked flags, but may itself be unmounted: the disk can be taken away.
    """
    fd = mounts.clone_tree(place(index), recursive=disk["recursive"])
    try:
        set_propagation(disk, fd)
        target = open_target(root, disk, fd)
        mounts.attach(fd, disk["target"], dir_fd=target)
        os.close(target)
    finally:
        os.close(fd)


def open_disk(disk: Disk, userns_fd: int) -> int:
    """Return the detached mount of a disk's source, flags set."""
    flags = mounts.RDONLY if disk["readonly"] else 0
    if disk["beneath"] or not is_character_device(disk["source"]):
        flags |= mounts.NODEV
    for option in disk["raw_options"].split(","):
        flags |= _RAW_OPTIONS.get(option.strip(), 0)
    mapping = userns_fd if disk["shift"] else -1
    source = open_beneath(disk["source"], disk["beneath"]) if disk["beneath"] else AT_FDCWD
    try:
        return idmapped(
            disk["source"], mapping, flags,
            source=source, recursive=disk["recursive"], hears=hears(disk),
        )  # fmt: skip
    except OSError as error:
        if error.errno == errno.EINVAL and mapping >= 0:
            text = f"the filesystem of {disk['source']} cannot map ids: set shift=false on the disk"
            raise OSError(errno.EINVAL, text) from error
        raise
    finally:
        if source >= 0:
            os.close(source)


def is_character_device(path: str) -> bool:
    """Tell whether a disk shows a single device, such as /dev/zero, which then can be used."""
    return stat.S_ISCHR(os.stat(path).st_mode)


def open_beneath(path: str, top: str) -> int:
    """Open what is at a path below `top` (O_PATH). Raises OSError, EXDEV when links lead out."""
    directory = os.open(top, os.O_PATH | os.O_CLOEXEC)
    try:
        below = os.path.relpath(path, top)
        resolve = files.BENEATH | files.NO_MAGICLINKS
        return files.open_within(directory, below, os.O_PATH, resolve=resolve)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EXDEV, f"{path} is a link that leads out of {top}") from error
        raise
    finally:
        os.close(directory)


def set_propagation(disk: Disk, tree: int) -> None:
    """Let a disk that is about to be attached pass on what is mounted below it, as it asks for.

    Nothing ever leaves the container: it hears of the host, not the host of it.
    """
    kind = _PROPAGATION.get(disk["propagation"].removeprefix("r"), 0)
    if kind:
        is_recursive = disk["propagation"].startswith("r")
        mounts.set_attributes(tree, disk["target"], 0, propagation=kind, recursive=is_recursive)


def open_target(root: Confined, disk: Disk, tree: int) -> int:
    """Open, or make, what a disk covers: the container's path, resolved inside the rootfs."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        return root.directory(disk["target"])
    return root.file(disk["target"])


def mount_kernel_filesystems(spec: Spec, *, legacy_cgroups: bool) -> None:
    """Mount what belongs to the container's own namespaces: after pivot_root, by its init.

    /sys/kernel/debug is covered: systemd would try to mount debugfs there and fail.
    """
    quiet = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    mounts.mount("proc", "/proc", "proc", quiet)
    mounts.mount("sysfs", "/sys", "sysfs", quiet)
    pts = "newinstance,ptmxmode=0666,mode=0620,gid=5,max=1026"
    mounts.mount("devpts", "/dev/pts", "devpts", mounts.MS_NOSUID | mounts.MS_NOEXEC, pts)
    mounts.mount("tmpfs", "/dev/shm", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=1777")
    mounts.mount("mqueue", "/dev/mqueue", "mqueue", quiet)
    if os.path.isdir("/sys/kernel/debug"):
        flags = quiet | mounts.MS_RDONLY
        mounts.mount("none", "/sys/kernel/debug", "tmpfs", flags, "size=0,mode=0555")
    _mount_cgroups(quiet, legacy=legacy_cgroups)
    if spec["nesting"]:
        mounts.mount("proc", "/dev/.lxc/proc", "proc", quiet)
        mounts.mount("sysfs", "/dev/.lxc/sys", "sysfs", quiet)


def _mount_cgroups(flags: int, *, legacy: bool) -> None:
    if not os.path.isdir("/sys/fs/cgroup"):
        return
    if not legacy:
        mounts.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags)
        return
    mounts.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", flags, "mode=0755,size=64k")
    os.mkdir("/sys/fs/cgroup/systemd")
    mounts.mount("cgroup", "/sys/fs/cgroup/systemd", "cgroup", flags, "none,name=systemd")


def cover_for_privileged() -> None:
    """Without a user namespace, make what reaches the host's kernel read-only.

    After the sysctls are written. /proc/sys/net is the container's own.
    """
    quiet = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    change = mounts.MS_BIND | mounts.MS_REMOUNT | quiet
    for path in ("/proc/sys", "/proc/sysrq-trigger"):
        if os.path.exists(path):
            mounts.mount(path, path, "", mounts.MS_BIND)
            mounts.mount("none", path, "", change | mounts.MS_RDONLY)
    mounts.mount("/proc/sys/net", "/proc/sys/net", "", mounts.MS_BIND)
    mounts.mount("none", "/proc/sys/net", "", change)
    mounts.mount("none", "/sys", "", change | mounts.MS_RDONLY)
