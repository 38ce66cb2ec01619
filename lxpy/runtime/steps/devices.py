"""/dev of a container: a small tmpfs with the standard nodes and those its devices add.

The standard nodes are bind mounts, which a checkpoint can name; nodes of devices are made in place.
Those that are wanted outside of /dev, where none counts, wait in it and are bound to their place.
"""

from __future__ import annotations

import os
import stat

from lxpy.kernel import mounts, namespaces
from lxpy.kernel.processes import file_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.fs import Confined
    from lxpy.runtime.plain import Node

STANDARD = (
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("fuse", 10, 229, 0o666),
    ("net/tun", 10, 200, 0o666),
)
_STORE = "nodes"
_ELSEWHERE = (".lxc", "nodes")  # below /dev
DIRECTORIES = (
    ("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755), ("net", 0o755), (".lxc", 0o711),
    (".lxc/proc", 0o555), (".lxc/sys", 0o555),
)  # fmt: skip
LINKS = (
    ("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
)  # fmt: skip


def mount_dev(root: Confined, uid: int, gid: int) -> int:
    """Mount and fill /dev, owned by the container's root; return its descriptor."""
    old_mask = os.umask(0)
    fd = mounts.make("tmpfs", {"size": "4m", "nr_inodes": "4096", "mode": "0755"}, mounts.NOSUID)
    for name, mode in DIRECTORIES:
        os.mkdir(name, mode, dir_fd=fd)
        os.chown(name, uid, gid, dir_fd=fd)
    for name, target in LINKS:
        os.symlink(target, name, dir_fd=fd)
        os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
    os.chown(".", uid, gid, dir_fd=fd)
    target_fd = root.plain_directory("dev")
    mounts.attach(fd, "/dev", dir_fd=target_fd)
    os.close(target_fd)
    _bind_standard(fd, uid, gid)
    os.umask(old_mask)
    return fd


def _bind_standard(dev: int, uid: int, gid: int) -> None:
    """Make the nodes in the scratch directory, our working directory, and bind them.

    Kernels before 6.15 clone nothing out of a mount that is not attached. A nested installation
    binds its own.
    """
    if namespaces.is_nested():
        for name, *_ in STANDARD:
            if os.path.exists(f"/dev/{name}"):
                bind_file(dev, name, mounts.clone_tree(f"/dev/{name}"))
        return
    store = mounts.make("tmpfs", {"size": "64k", "mode": "0700"}, mounts.NOSUID)
    os.mkdir(_STORE, 0o700)
    mounts.attach(store, _STORE, path=_STORE)
    os.close(store)
    for name, major, minor, mode in STANDARD:
        node = f"{_STORE}/{name.rpartition('/')[2]}"
        os.mknod(node, mode | stat.S_IFCHR, os.makedev(major, minor))
        os.chown(node, uid, gid)
        bind_file(dev, name, mounts.clone_tree(node))


def bind_file(dev: int, name: str, mount_fd: int) -> None:
    """Attach a detached mount of a file on a new empty file of /dev; closes `mount_fd`."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open(name, flags, 0o600, dir_fd=dev)
    mounts.attach(mount_fd, f"/dev/{name}", dir_fd=place)
    os.close(place)
    os.close(mount_fd)


def make_node(dev: int, node: Node, uid: int, gid: int) -> None:
    """Make a device node; `uid` and `gid` are its owner on the host.

    `dev` is the container's /dev: each directory on the way is taken without following links.
    Raises OSError, FileExistsError where there is something already.
    """
    *directories, name = _below_dev(node["path"]) if is_in_dev(node["path"]) else _waiting(node)
    fd = _descend(dev, directories, uid, gid)
    try:
        _mknod(name, node, fd)
        os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        os.chmod(f"/proc/self/fd/{made}", node["mode"])
        os.close(made)
    finally:
        os.close(fd)


def is_in_dev(path: str) -> bool:
    """Tell whether a node is wanted in /dev, or elsewhere."""
    return path.startswith("/dev/")


def _waiting(node: Node) -> list[str]:
    """Return where below /dev a node waits that is wanted elsewhere."""
    return [*_ELSEWHERE, node["path"].strip("/").replace("-", "--").replace("/", "-")]


def show_elsewhere(root: Confined, node: Node) -> None:
    """Bind a node to its place outside of /dev: as the container's root, in its mount namespace."""
    tree = mounts.clone_tree("/".join(["dev", *_waiting(node)]), dir_fd=root.fd)
    try:
        target = root.file(node["path"])
        mounts.attach(tree, node["path"], dir_fd=target)
        os.close(target)
    finally:
        os.close(tree)


def bind_node(dev: int, path: str, tree: int, uid: int, gid: int) -> None:
    """Show the node that `tree`, a detached mount, is at a path of the container's /dev.

    For a /dev that a restore has mounted, in the user namespace: no node can be made or opened
    there. In the container's mount namespace. Raises OSError, FileExistsError.
    """
    *directories, name = _below_dev(path)
    with file_owner(uid, gid):
        fd = _descend(dev, directories, uid, gid)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            place = os.open(name, flags, 0o600, dir_fd=fd)
        finally:
            os.close(fd)
    try:
        mounts.attach(tree, path, dir_fd=place)
    finally:
        os.close(place)


def store_node(node: Node, place: str, uid: int, gid: int) -> None:
    """Make a node at `place` in a tmpfs of ours, to be mounted from there."""
    _mknod(place, node)
    os.chown(place, uid, gid)
    os.chmod(place, node["mode"])


def _mknod(name: str, node: Node, directory: int | None = None) -> None:
    kind = stat.S_IFCHR if node["kind"] == "c" else stat.S_IFBLK
    try:
        os.mknod(name, kind | 0o600, os.makedev(node["major"], node["minor"]), dir_fd=directory)
    except PermissionError as error:
        text = f"{node['path']}: a nested lxpyd can make no device nodes"
        raise OSError(error.errno, text if namespaces.is_nested() else str(error)) from error


def remove_node(dev: int, path: str) -> None:
    """Remove a node again. Raises OSError."""
    *directories, name = _below_dev(path)
    fd = _descend(dev, directories)
    try:
        os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _below_dev(path: str) -> list[str]:
    names = [name for name in path.split("/") if name not in ("", ".")]
    if len(names) < 2 or names[0] != "dev" or ".." in names:
        raise ValueError(f"device path {path!r} is not below /dev")
    return names[1:]


def _descend(dev: int, names: list[str], uid: int = -1, gid: int = -1) -> int:
    """Step down, directory by directory, made where missing unless `uid` is -1."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(".", flags, dir_fd=dev)
    for name in names:
        try:
            following = _step(fd, name, flags, uid, gid)
        finally:
            os.close(fd)
        fd = following
    return fd


def _step(fd: int, name: str, flags: int, uid: int, gid: int) -> int:
    try:
        return os.open(name, flags, dir_fd=fd)
    except FileNotFoundError:
        if uid < 0:
            raise
    os.mkdir(name, 0o755, dir_fd=fd)
    os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
    return os.open(name, flags, dir_fd=fd)
