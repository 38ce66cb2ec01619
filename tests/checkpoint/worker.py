"""What a checkpoint must not disturb: a process in a guest that counts, listens and answers.

It needs nothing but a static busybox, which is put into every guest, whatever that is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.images import busybox
from tests.support import processes
from tests.support.daemon import Daemon

_PORT = "7000"
_DIRECTORY = "/root/work"
_BUSYBOX = "/root/busybox"
# It has in its hands: a counter and a tag in memory, sleeping children, fifos, a pipe, an open file
# that is deleted, a connection to another instance.
_SCRIPT = f"""#!{_BUSYBOX} sh
cd {_DIRECTORY}
tag=$({_BUSYBOX} cat /proc/sys/kernel/random/uuid)
{_BUSYBOX} mkfifo ask to from
echo deleted >gone; exec 9<gone; {_BUSYBOX} rm gone
exec 5<>to 6<>from 7<>ask
{_BUSYBOX} nc $1 {_PORT} <&5 >&6 &
count=0
while :; do
    count=$((count + 1)); echo "$tag $count" >state.new
    {_BUSYBOX} mv state.new state; {_BUSYBOX} sleep 0.1
done &
while read word <&7; do
    echo "$word" >&5; read echoed <&6
    echo "$tag $echoed $({_BUSYBOX} cat /proc/self/fd/9)"
done | while read line; do
    echo "$line" >answer.new; {_BUSYBOX} mv answer.new answer
done
"""
_ASK = (
    f"cd {_DIRECTORY}; rm -f answer; echo {{word}} >ask; n=0; "
    "until [ -e answer ]; do n=$((n + 1)); [ $n -lt 100 ] || exit 9; sleep 0.1; done; cat answer"
)


def serve(daemon: Daemon, peer: str) -> None:
    """Have an instance of the tiny image send back whatever it is sent."""
    listening = f"setsid nc -ll -p {_PORT} -e cat </dev/null >/dev/null 2>&1 &"
    daemon.exec(peer, "sh", "-c", listening)


@dataclass(frozen=True)
class Worker:
    """The process, known by its tag."""

    tag: str

    @classmethod
    def begin(cls, daemon: Daemon, name: str, peer: str) -> Worker:
        """Start it; `peer` is the address of what serves."""
        daemon.exec(name, "mkdir", "-p", _DIRECTORY)
        daemon.lxpy("file", "push", "--mode=755", busybox.BUSYBOX, f"{name}{_BUSYBOX}")
        daemon.lxpy("file", "push", "--mode=755", "-", f"{name}{_DIRECTORY}/run", input=_SCRIPT)
        start = f"{_BUSYBOX} setsid {_DIRECTORY}/run {peer} </dev/null >/dev/null 2>&1 &"
        daemon.exec(name, "sh", "-c", start)
        processes.wait_until(
            lambda: _exists(daemon, name, f"{_DIRECTORY}/state"), what="the worker counts"
        )
        worker = cls(worker_state(daemon, name)[0])
        worker.answers(daemon, name)
        return worker

    def counts(self, daemon: Daemon, name: str) -> int:
        """Check that the same process counts on; where it was."""
        tag, first = worker_state(daemon, name)
        assert tag == self.tag, "another process counts"
        processes.wait_until(lambda: worker_state(daemon, name)[1] > first, 20, "it counts on")
        return first

    def answers(self, daemon: Daemon, name: str) -> None:
        """Check its connection, its pipe and its deleted file: one word goes through all."""
        word = f"w{time.monotonic_ns()}"
        done = daemon.exec(name, "sh", "-c", _ASK.format(word=word), check=False)
        assert done.returncode != 9, "the connection to the other instance is dead"
        assert done.stdout.split() == [self.tag, word, "deleted"], done.stdout + done.stderr


def worker_state(daemon: Daemon, name: str) -> tuple[str, int]:
    """The worker's tag, and how far it has counted."""
    tag, number = daemon.out(name, "cat", f"{_DIRECTORY}/state").split()
    return tag, int(number)


def _exists(daemon: Daemon, name: str, path: str) -> bool:
    return daemon.exec(name, "ls", path, check=False).returncode == 0
