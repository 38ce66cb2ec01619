"""Who is at the other end of a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lxpy.kernel.peers import Peer


def test_it_is_who_has_connected(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        program = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            "sys.stdin.read()"
        )
        child = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE)
        accepted, _ = listener.accept()
        with accepted:
            with Peer(accepted) as peer:
                assert (peer.pid, peer.uid, peer.gid) == (child.pid, os.getuid(), os.getgid())
                assert peer.lives()
                child.communicate()
                assert not peer.lives()
            with suppress(ProcessLookupError), Peer(accepted) as peer:
                assert not peer.lives()
