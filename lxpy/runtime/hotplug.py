"""Devices that come and go while the container runs."""

from __future__ import annotations

import _socket
import errno
import os

from lxpy.kernel import mounts, namespaces, processes
from lxpy.runtime import frames, phases, proxies
from lxpy.runtime.fs import Confined
from lxpy.runtime.phases import Report, StepFailed
from lxpy.runtime.steps import devices, identity
from lxpy.runtime.steps import mounts as mount_steps

_KOBJECT_UEVENT, _KERNEL_GROUP = 15, 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.runtime.frames import Message
    from lxpy.runtime.held import Container
    from lxpy.runtime.plain import Disk, Node
    from lxpy.runtime.server import Supervisor


def handle(supervisor: Supervisor, message: Message) -> Message | None:
    """Add or remove what a request names. None: a helper will answer. Raises OSError."""
    container = supervisor.held(message)
    action = message["action"]
    if action == "add-node":
        return _plug_node(supervisor, container, message["id"], message["node"])
    if action == "remove-node":
        gone = message["node"]["path"]
        _allow(supervisor, container, [each for each in container.nodes if each["path"] != gone])
        if devices.is_in_dev(gone):
            _remove_node(container, gone)
            return {}
        _Helper(supervisor, message["id"], f"device {gone}", lambda: _unbind(container, gone))
        return None
    if action == "add-disk":
        userns = supervisor.user_namespaces.get(container.idmap)
        disk = message["disk"]
        step = f"disk {disk['target']}"
        _Helper(supervisor, message["id"], step, lambda: _add_disk(container, disk, userns))
        return None
    if action == "remove-disk":
        disk = message["disk"]
        step = f"disk {disk['target']}"
        _Helper(supervisor, message["id"], step, lambda: _remove_disk(container, disk))
        return None
    if action == "uevent":
        text = message["text"].encode(errors="surrogateescape")
        _Helper(supervisor, message["id"], "uevent", lambda: _send_uevent(container, text))
        return None
    if action == "proxies":
        _set_proxies(supervisor, container, message)
        return None
    raise StepFailed("hotplug", f"unknown action {action!r}")


def _plug_node(
    supervisor: Supervisor, container: Container, request: int, node: Node
) -> Message | None:
    """Show a node; None: a helper will answer. Raises OSError."""
    answer: Message | None = None
    step = f"device {node['path']}"
    if not devices.is_in_dev(node["path"]):
        _Helper(supervisor, request, step, lambda: _bind_elsewhere(container, node))
    else:
        try:
            _with_dev(container, lambda dev: _add_node(container, dev, node))
            answer = {}
        except OSError as error:
            # A /dev that a restore has mounted belongs to the user namespace.
            if error.errno != errno.EOVERFLOW:
                raise
            _Helper(supervisor, request, step, lambda: _bind_node(container, node))
    others = [each for each in container.nodes if each["path"] != node["path"]]
    _allow(supervisor, container, [*others, node])
    return answer


def _set_proxies(supervisor: Supervisor, container: Container, message: Message) -> None:
    def done(failure: StepFailed | None) -> None:
        if failure is not None:
            supervisor.refuse(message["id"], failure)
            return
        supervisor.journal.write(container.name, container.entry())
        supervisor.answer(message["id"], {})

    proxies.apply(supervisor, container, message["proxies"], done)


def _with_dev(container: Container, act: Callable[[int], None]) -> None:
    """Reach the container's /dev from outside: no namespace is entered."""
    root = Confined.at(f"/proc/{container.pid}/root")
    try:
        dev = root.plain_directory("dev")
        try:
            act(dev)
        finally:
            os.close(dev)
    finally:
        root.close()


def _remove_node(container: Container, path: str) -> None:
    try:
        _with_dev(container, lambda dev: devices.remove_node(dev, path))
    except FileNotFoundError:
        return  # its root has removed it


def _allow(supervisor: Supervisor, container: Container, allowed: list[Node]) -> None:
    container.set_nodes(allowed)
    container.restrict_devices()
    supervisor.journal.write(container.name, container.entry())


def _add_node(container: Container, dev: int, node: Node) -> None:
    devices.make_node(dev, node, *_owner(container, node))


def _owner(container: Container, node: Node) -> tuple[int, int]:
    uid = identity.outside(container.idmap, "u", node["uid"])
    return uid, identity.outside(container.idmap, "g", node["gid"])


def _bind_node(container: Container, node: Node) -> None:
    """Show a node that lies in a tmpfs of the host's: as a helper, which ends with it."""
    processes.protect()
    mounts.make_private()
    dev = Confined.at(f"/proc/{container.pid}/root").plain_directory("dev")
    tree = _stored(container, node)
    namespaces.join(container.pidfd, namespaces.NEWNS, "mount namespace")
    devices.bind_node(dev, node["path"], tree, *_root_of(container))


def _bind_elsewhere(container: Container, node: Node) -> None:
    """Show a node outside of /dev: as a helper."""
    processes.protect()
    mounts.make_private()
    root = Confined.at(f"/proc/{container.pid}/root")
    tree = _stored(container, node)
    with processes.file_owner(*_root_of(container)):
        target = root.file(node["path"])
    namespaces.join(container.pidfd, namespaces.NEWNS, "mount namespace")
    mounts.attach(tree, node["path"], dir_fd=target)


def _stored(container: Container, node: Node) -> int:
    """Make a node in a tmpfs of this mount namespace; return its detached mount."""
    store = mounts.make("tmpfs", {"size": "64k", "mode": "0700"}, mounts.NOSUID)
    mounts.attach(store, "nodes", path="/proc")  # a path of ours
    devices.store_node(node, "/proc/node", *_owner(container, node))
    return mounts.clone_tree("/proc/node")


def _root_of(container: Container) -> tuple[int, int]:
    """Return the ids of the container's root on the host."""
    idmap = container.idmap
    return identity.outside(idmap, "u", 0), identity.outside(idmap, "g", 0)


def _unbind(container: Container, path: str) -> None:
    """Take a node away that is shown outside of /dev, and the empty file below it."""
    _detach(container, path)
    if os.path.isfile(path) and not os.path.islink(path) and not os.path.getsize(path):
        os.unlink(path)


class _Helper:
    """A short-lived child that works in the container's namespaces."""

    def __init__(
        self, supervisor: Supervisor, request: int, step: str, act: Callable[[], None]
    ) -> None:
        self.supervisor = supervisor
        self.request = request
        self.failure: StepFailed | None = None
        ours, theirs = frames.pair()
        pid, pidfd = processes.fork(namespaces.NEWNS)
        if pid == 0:
            report = Report(theirs.fileno())
            report.begin(step)
            try:
                act()
            except BaseException as error:
                report.fail(error)
            os._exit(0)
        theirs.close()
        supervisor.reap_later(pidfd)
        ours.setblocking(False)
        self.report = ours
        supervisor.loop.watch(ours.fileno(), self._reported)

    def _reported(self, _: int) -> None:
        try:
            received = phases.receive(self.report)
        except BlockingIOError:
            return
        if received is not None:
            news = received[0]
            self.failure = StepFailed(news["step"], news["failed"], news["errno"])
            return
        self.supervisor.loop.forget(self.report.fileno())
        self.report.close()
        if self.failure is None:
            self.supervisor.answer(self.request, {})
        else:
            self.supervisor.refuse(self.request, self.failure)


def _add_disk(container: Container, disk: Disk, userns: int) -> None:
    """Attach a disk with its flags locked against the container's root.

    The detached mount is first attached in this helper's mount namespace, which belongs to the
    initial user namespace; copied into one of the container's user namespace, its flags are locked;
    a clone of that copy keeps them.
    """
    processes.protect()
    tree = mount_steps.open_if_there(disk, userns)
    if tree < 0:
        return
    mounts.make_private()
    root = Confined.at(f"/proc/{container.pid}/root")
    with processes.file_owner(*_root_of(container)):
        target = mount_steps.open_target(root, disk, tree)
    pidfd = container.pidfd
    if userns >= 0:
        place = _place(disk)
        mounts.attach(tree, disk["source"], path=place)
        os.close(tree)
        # Its own: that of a restored container is none of those we keep.
        namespaces.join(pidfd, namespaces.NEWUSER, "user namespace")
        processes.become_root()
        namespaces.unshare(namespaces.NEWNS, "mount namespace")
        tree = mounts.clone_tree(place, recursive=disk["recursive"])
    mount_steps.set_propagation(disk, tree)
    namespaces.join(pidfd, namespaces.NEWNS, "mount namespace")
    mounts.attach(tree, disk["target"], dir_fd=target)


def _send_uevent(container: Container, data: bytes) -> None:
    """Say in the container's network namespace what the kernel said on the host.

    Only root of the namespace's owner may; those who listen there hear it as the kernel's.
    """
    processes.protect()
    flags = namespaces.NEWNET | (namespaces.NEWUSER if container.idmap else 0)
    namespaces.join(container.pidfd, flags, "namespaces")
    if container.idmap:
        processes.become_root()
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    sock = _socket.socket(_socket.AF_NETLINK, kind, _KOBJECT_UEVENT)
    words = [word for word in data.split(b"\0") if word and not word.startswith(b"SEQNUM=")]
    sock.sendto(b"\0".join(words) + b"\0", (0, _KERNEL_GROUP))


def _place(disk: Disk) -> str:
    """Find a path of ours, in this mount namespace, to attach to: a directory or a file."""
    return "/proc" if os.path.isdir(disk["source"]) else "/proc/version"


def _remove_disk(container: Container, disk: Disk) -> None:
    """Detach what covers the target, if anything does."""
    try:
        _detach(container, disk["target"])
    except OSError as error:
        if disk["required"] or error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def _detach(container: Container, path: str) -> None:
    """Enter the container as its root and unmount. Lazily: a process may still use it."""
    processes.protect()
    flags = namespaces.NEWNS | (namespaces.NEWUSER if container.idmap else 0)
    namespaces.join(container.pidfd, flags, "namespaces")
    if container.idmap:
        processes.become_root()
    mounts.unmount(path, mounts.MNT_DETACH)
