"""lxpy-supervisor: one process for all instances of a host. Here it starts; server.py is its work.

It gets a small interpreter of its own, its socket, and its place in the background.
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import os
import sys

from lxpy.kernel import mounts, processes
from lxpy.runtime.cgroups import Layout, Root
from lxpy.runtime.server import Supervisor
from lxpy.runtime.steps import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_USAGE = "usage: lxpy-supervisor --run-dir DIR --cgroup NAME [--log FILE] [--detach]\n"
_SEALED = "--sealed"
_START = "import sys; sys.path.append(%r); from lxpy.runtime.supervisor import main; main()"


def command(*arguments: str) -> list[str]:
    """Return how to run the supervisor: isolated, without site-packages but our own directory."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-S", "-c", _START % package, *arguments]


def main() -> NoReturn:
    """Run `lxpy-supervisor`."""
    arguments = sys.argv[1:]
    if not (sys.flags.isolated and sys.flags.no_site):
        os.execv(sys.executable, command(*arguments))
    if _SEALED not in arguments:
        _seal([*arguments, _SEALED])
    options = _parse(arguments)
    ready = _detach() if "detach" in options else -1
    listener = _listen(options["run-dir"])
    if options.get("log"):
        _log_to(options["log"])
    processes.protect()
    processes.set_name("lxpy-supervisor")
    processes.adopt_orphans()
    confine.raise_descriptors()
    run_dir = options["run-dir"]
    root = Root(Layout.detect(run_dir=run_dir), options["cgroup"])
    root.prepare()
    supervisor = Supervisor(run_dir, root, listener)
    supervisor.take_over()
    if ready >= 0:
        os.write(ready, b"ready")
        os.close(ready)
    gc.collect()
    gc.freeze()
    supervisor.loop.run()
    root.remove()
    root.layout.unmount_systemd(run_dir)
    for name in ("supervisor.sock", "stage"):
        _remove(f"{run_dir}/{name}")
    os._exit(0)


def _seal(arguments: list[str]) -> None:
    """Run from a read-only mount of the interpreter.

    A privileged container may reach it as /proc/PID/exe of a command that joins, and must not be
    able to write to it. Without effect where the kernel cannot do it.
    """
    again = command(*arguments)
    try:
        fd = mounts.clone_tree(os.path.realpath(sys.executable))
        mounts.set_attributes(fd, sys.executable, mounts.RDONLY)
    except OSError:
        os.execv(sys.executable, again)
    processes.execute_fd(fd, again, os.environ)
    raise AssertionError("unreachable")


def _parse(arguments: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name = word.removeprefix("--")
        if name in ("run-dir", "cgroup", "log"):
            options[name] = next(words, "")
        elif word in ("--detach", _SEALED):
            options[name] = "yes"
        else:
            _stop(f"unknown argument {word!r}\n{_USAGE}", 2)
    if not options.get("run-dir") or not options.get("cgroup"):
        _stop(_USAGE, 2)
    return options


def _stop(text: str, status: int) -> NoReturn:
    sys.stderr.write(text)
    sys.stderr.flush()
    os._exit(status)


def _detach() -> int:
    """Go to the background; return what to write "ready" to. The parent waits for that."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 16) == b"ready" else 1)
    os.close(reader)
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    return writer


def _log_to(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)


def _listen(run_dir: str) -> _socket.socket:
    """Take the socket over from a dead supervisor; stop when a live one holds it."""
    os.makedirs(run_dir, mode=0o711, exist_ok=True)
    lock = os.open(f"{run_dir}/supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _stop("another lxpy-supervisor runs for this directory\n", 3)
    path = f"{run_dir}/supervisor.sock"
    _remove(path)
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    listener = _socket.socket(_socket.AF_UNIX, kind)
    mask = os.umask(0o177)
    listener.bind(path)
    os.umask(mask)
    listener.listen(4)
    return listener


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rmdir(path)
    except FileNotFoundError:
        return
