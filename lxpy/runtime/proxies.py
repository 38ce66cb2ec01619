"""The supervisor's part of proxies: one forwarder (forwarder.py) for each instance that has some.

It is asked through a socket in the run directory, so that the next supervisor can, too. Its end
comes with the instance's; should it die before, another one takes its place.
"""

from __future__ import annotations

import _socket
import os

from lxpy.kernel import processes
from lxpy.runtime import forwarder, frames
from lxpy.runtime.phases import StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.runtime.held import Container
    from lxpy.runtime.plain import Proxy
    from lxpy.runtime.server import Supervisor

    Answer = Callable[[StepFailed | None], None]

_KIND = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
_AGAIN_S = 0.5
_GRACE_S = 2.0


class Forwarder:
    """The forwarder of one container, as the supervisor sees it."""

    __slots__ = ("container", "pid", "pidfd", "supervisor", "then")

    def __init__(self, supervisor: Supervisor, container: Container, pid: int, pidfd: int) -> None:
        self.supervisor = supervisor
        self.container = container
        self.pid = pid
        self.pidfd = pidfd
        self.then: Callable[[], None] | None = None  # waits for its end
        supervisor.loop.watch(pidfd, self._ended)

    def _ended(self, _: int) -> None:
        supervisor, container = self.supervisor, self.container
        supervisor.loop.forget(self.pidfd)
        try:
            processes.reap(self.pidfd)
        except ChildProcessError:
            pass  # a former supervisor's
        os.close(self.pidfd)
        _forget(supervisor, container)
        if self.then is not None:
            self.then()
        elif container.proxies and container.end is None:
            supervisor.loop.later(_AGAIN_S, lambda: _again(supervisor, container))

    def kill(self) -> None:
        """End it by force, as it has not ended with its instance."""
        if self.container.forwarder is self:
            processes.send_signal(self.pidfd, 9)


def apply(supervisor: Supervisor, container: Container, proxies: list[Proxy], then: Answer) -> None:
    """Have a container's proxies be these; `then` hears whether they are, or what failed."""
    if container.forwarder is None and not proxies:
        then(None)
        return
    try:
        if container.forwarder is None:
            container.forwarder = _spawn(supervisor, container)
        client = _socket.socket(_socket.AF_UNIX, _KIND | _socket.SOCK_NONBLOCK)
        try:
            directory = _directory(supervisor)
            client.connect(f"/proc/self/fd/{directory}/{container.name}")
            frames.send(client, {"proxies": proxies, "idmap": container.idmap})
        except OSError:
            client.close()
            raise
        finally:
            os.close(directory)
    except OSError as error:
        then(StepFailed("proxies", str(error), error.errno))
        return

    def answered(_: int) -> None:
        try:
            received = frames.receive(client)
        except BlockingIOError:
            return
        except OSError:
            received = None
        supervisor.loop.forget(client.fileno())
        client.close()
        failure = _failure(received)
        if failure is None:
            container.proxies = proxies
        found = container.forwarder
        if not container.proxies and found is not None:
            found.then = lambda: then(failure)  # without proxies it ends
            return
        then(failure)

    supervisor.loop.watch(client.fileno(), answered)


def _failure(received: tuple[frames.Message, list[int]] | None) -> StepFailed | None:
    if received is None:
        return StepFailed("proxies", "the forwarder has ended: see the supervisor's log")
    error = received[0].get("error")
    return StepFailed("proxies", error["text"], error["errno"]) if error else None


def _spawn(supervisor: Supervisor, container: Container) -> Forwarder:
    """Start a forwarder that listens to us. Raises OSError."""
    _remove(supervisor, container.name)
    directory = _directory(supervisor)
    control = _socket.socket(_socket.AF_UNIX, _KIND)
    mask = os.umask(0o177)
    try:
        control.bind(f"/proc/self/fd/{directory}/{container.name}")
        control.listen(4)
        pid, pidfd = processes.fork()
        if pid == 0:
            _execute(control.fileno(), container)
    finally:
        os.umask(mask)
        os.close(directory)
        control.close()
    made = Forwarder(supervisor, container, pid, pidfd)
    container.forwarder = made
    container.forwarder_id = [pid, processes.start_time(pid)]
    return made


def _execute(control: int, container: Container) -> None:
    try:
        for number in processes.keep_only([control, container.pidfd], forwarder.CONTROL_FD):
            os.set_inheritable(number, True)
        os.setsid()
        words = forwarder.command(container.name, container.pid)
        os.execv(words[0], words)
    finally:
        os._exit(127)


def adopt(supervisor: Supervisor, container: Container) -> None:
    """Find the forwarder of a container that a former supervisor has left, or start another."""
    if not container.proxies:
        return
    try:
        pid, start_time = container.forwarder_id
        pidfd = os.pidfd_open(pid)
        if processes.start_time(pid) == start_time:
            container.forwarder = Forwarder(supervisor, container, pid, pidfd)
            return
        os.close(pidfd)
    except (OSError, ValueError):
        pass  # it has ended
    _again(supervisor, container)


def _again(supervisor: Supervisor, container: Container) -> None:
    """Replace a forwarder that has died; what another one has taken meanwhile is tried again."""
    if container.end is not None or container.pidfd < 0 or container.forwarder is not None:
        return

    def done(failure: StepFailed | None) -> None:
        if failure is None:
            supervisor.journal.write(container.name, container.entry())

    apply(supervisor, container, container.proxies, done)


def ended(supervisor: Supervisor, container: Container, then: Callable[[], None]) -> None:
    """Call `then` when the forwarder of a container that has ended is gone."""
    found = container.forwarder
    if found is None:
        then()
        return
    found.then = then
    supervisor.loop.later(_GRACE_S, found.kill)


def _forget(supervisor: Supervisor, container: Container) -> None:
    container.forwarder, container.forwarder_id = None, []
    _remove(supervisor, container.name)


def _directory(supervisor: Supervisor) -> int:
    """Open where the sockets are: their whole paths may be too long for one."""
    path = f"{supervisor.run_dir}/proxies"
    os.makedirs(path, mode=0o700, exist_ok=True)
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _remove(supervisor: Supervisor, name: str) -> None:
    try:
        os.unlink(f"{supervisor.run_dir}/proxies/{name}")
    except FileNotFoundError:
        return
