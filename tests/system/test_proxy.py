"""Proxy devices: what passes, what survives, what is left behind."""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxpy.kernel import namespaces
from lxpy.kernel.processes import file_owner
from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.processes import wait_until

pytestmark = pytest.mark.timeout(240)
_PATIENCE_S = 30


def in_guest(pid: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Make a socket in an instance's network namespace."""
    made: list[socket.socket] = []

    def make() -> None:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        namespaces.join(descriptor, namespaces.NEWNET, "network namespace")
        os.close(descriptor)
        made.append(socket.socket(family, kind, protocol))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(_PATIENCE_S)
    return made[0]


def bind(sock: socket.socket, address: object) -> None:
    """Bind; below an instance's root as its root, whose ids the files have."""
    owner = (0, 0)
    if isinstance(address, str) and address.startswith("/proc/"):
        status = os.stat(address.rpartition("/")[0])
        owner = (status.st_uid, status.st_gid)
    with file_owner(*owner):
        sock.bind(address)  # type: ignore[arg-type]


@contextmanager
def server(sock: socket.socket, address: object, *, shout: bool = True) -> Iterator[list[bytes]]:
    """Answer everybody with what they said, in capitals; yields what was said."""
    said: list[bytes] = []
    if sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bind(sock, address)

    def talk(client: socket.socket) -> None:
        with client:
            client.settimeout(_PATIENCE_S)
            while data := client.recv(65536):
                said.append(data)
                client.sendall(data.upper() if shout else data)

    def serve() -> None:
        while True:
            try:
                if sock.type == socket.SOCK_DGRAM:
                    data, sender = sock.recvfrom(65536)
                    said.append(data)
                    sock.sendto(data.upper(), sender)
                else:
                    client = sock.accept()[0]
                    threading.Thread(target=talk, args=(client,), daemon=True).start()
            except TimeoutError:
                continue
            except OSError:
                return

    if sock.type == socket.SOCK_STREAM:
        sock.listen(1)  # so that a crowd has to wait
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield said
    finally:
        if sock.type == socket.SOCK_STREAM:
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def ask(address: object, data: bytes = b"hello", *, kind: int = socket.SOCK_STREAM) -> bytes:
    """Say something and return the whole answer."""
    family = socket.AF_UNIX if isinstance(address, str | bytes) else socket.AF_INET
    with socket.socket(family, kind) as client:
        client.settimeout(_PATIENCE_S)
        client.connect(address)  # type: ignore[arg-type]
        client.sendall(data)
        if kind == socket.SOCK_DGRAM:
            return client.recv(65536)
        client.shutdown(socket.SHUT_WR)
        parts = []
        while part := client.recv(65536):
            parts.append(part)
        return b"".join(parts)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def proxy(listen: str, connect: str, **options: str) -> dict[str, dict[str, str]]:
    return {"px": {"type": "proxy", "listen": listen, "connect": connect, **options}}


def forwarders(daemon: Daemon, name: str) -> list[int]:
    return [
        pid
        for pid, line in processes.matching("lxpy-proxy").items()
        if f"lxpy-proxy {name} {daemon.init_pid(name)}" in line
    ]


def add(daemon: Daemon, name: str, devices: dict[str, dict[str, str]]) -> None:
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": devices})


def test_every_pair_of_protocols(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch()
    pid = daemon.init_pid(name)
    streams = {
        "tcp": (socket.AF_INET, ("127.0.0.1", 80)),
        "unix": (socket.AF_UNIX, "\0target"),
        "udp": (socket.AF_INET, ("127.0.0.1", 53)),
    }
    targets = {"tcp": "tcp:127.0.0.1:80", "unix": "unix:@target", "udp": "udp:127.0.0.1:53"}
    for target, (family, address) in streams.items():
        kind = socket.SOCK_DGRAM if target == "udp" else socket.SOCK_STREAM
        devices = {}
        ports = {"tcp": free_port(), "udp": free_port(socket.SOCK_DGRAM)}
        listens = {
            "tcp": f"tcp:127.0.0.1:{ports['tcp']}",
            "udp": f"udp:127.0.0.1:{ports['udp']}",
            "unix": f"unix:{tmp_path}/{target}.sock",
        }
        for source, listen in listens.items():
            devices[f"px-{source}"] = proxy(listen, targets[target])["px"]
        with server(in_guest(pid, family, kind), address):
            add(daemon, name, devices)
            assert len(forwarders(daemon, name)) == 1
            _check_talk(("127.0.0.1", ports["tcp"]), target)
            _check_talk(f"{tmp_path}/{target}.sock", target)
            assert ask(("127.0.0.1", ports["udp"]), kind=socket.SOCK_DGRAM) == b"HELLO"
    for source in ("tcp", "udp", "unix"):
        daemon.lxpy("config", "device", "remove", name, f"px-{source}")
    wait_until(lambda: not forwarders(daemon, name), 10, "the forwarder ends with its last proxy")
    assert not list(tmp_path.glob("*.sock"))


def _check_talk(address: object, target: str) -> None:
    """Talk over a connection; one to datagrams does not end by itself."""
    if target != "udp":
        assert ask(address) == b"HELLO"
        return
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE_S)
        client.connect(address)  # type: ignore[arg-type]
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"


def test_out_of_the_instance(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    path = f"{tmp_path}/host.sock"
    devices = {
        "a": proxy("unix:/tmp/in.sock", f"unix:{path}", bind="instance", mode="0666")["px"],
        "b": proxy("tcp:127.0.0.1:81", f"unix:{path}", bind="guest")["px"],
        "c": proxy("unix:@c", f"unix:{path}", bind="container")["px"],
        "d": proxy("unix:/run/d/d.sock", f"unix:{path}", bind="instance", uid="7", gid="8",
                   mode="0640")["px"],
    }  # fmt: skip
    with server(socket.socket(socket.AF_UNIX), path):
        name = launch(devices=devices)
        pid = daemon.init_pid(name)
        assert daemon.out(name, "stat", "-c", "%u %g %a", "/run/d/d.sock") == "7 8 640"
        assert ask(f"/proc/{pid}/root/tmp/in.sock") == b"HELLO"
        for address in (("127.0.0.1", 81), "\0c"):
            family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
            with in_guest(pid, family, socket.SOCK_STREAM) as client:
                client.connect(address)  # type: ignore[arg-type]
                client.sendall(b"hello")
                assert client.recv(100) == b"HELLO"
        daemon.lxpy("config", "device", "remove", name, "a")
        assert not os.path.exists(f"/proc/{pid}/root/tmp/in.sock")


def test_who_connects(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    """On the host who was asked for, without root's rights; in the instance its root."""
    tmp_path.chmod(0o711)
    tmp_path.parent.chmod(0o711)
    tmp_path.parent.parent.chmod(0o711)
    path = tmp_path / "host.sock"
    name = launch()
    pid = daemon.init_pid(name)
    ids = {"security.uid": "1234", "security.gid": "4321"}
    with socket.socket(socket.AF_UNIX) as host, in_guest(pid, socket.AF_UNIX, 1) as guest:
        host.bind(str(path))
        path.chmod(0o666)
        guest.bind("\0in")
        for each in (host, guest):
            each.settimeout(_PATIENCE_S)
            each.listen()
        out = proxy("unix:@out", f"unix:{path}", bind="instance", **ids)["px"]
        into = proxy(f"unix:{tmp_path}/in.sock", "unix:@in")["px"]
        add(daemon, name, {"out": out, "in": into})
        with in_guest(pid, socket.AF_UNIX, 1) as client:
            client.connect("\0out")
            assert _credentials(host) == (1234, 4321)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/in.sock")
            root = os.stat(f"/proc/{pid}/root").st_uid
            assert root > 0 and _credentials(guest) == (root, root)
        path.chmod(0o600)
        with in_guest(pid, socket.AF_UNIX, 1) as client:
            client.connect("\0out")
            assert client.recv(1) == b""  # it may not


def _credentials(listener: socket.socket) -> tuple[int, int]:
    """Who is at the other end of the next connection."""
    with listener.accept()[0] as peer:
        found = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return found[1], found[2]


def test_links_in_the_guest_lead_nowhere(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    """What the guest puts in the way does not make us reach for the host's files."""
    name = launch()
    host = tmp_path / "host.sock"
    listen = f"unix:{tmp_path}/l.sock"
    with server(socket.socket(socket.AF_UNIX), str(host)) as said:
        daemon.exec(name, "ln", "-s", str(host), "/tmp/target")
        add(daemon, name, proxy(listen, "unix:/tmp/target"))
        assert not _answers(f"{tmp_path}/l.sock") and not said
        daemon.lxpy("config", "device", "remove", name, "px")
        daemon.exec(name, "ln", "-s", str(tmp_path), "/tmp/directory")
        with pytest.raises(ApiError, match="Too many levels of symbolic links"):
            add(daemon, name, proxy("unix:/tmp/directory/x", f"unix:{host}", bind="instance"))
        assert not (tmp_path / "x").exists()


def test_ranges_and_lists(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    pid = daemon.init_pid(name)
    first = free_port()
    devices = proxy(f"tcp:127.0.0.1:{first}-{first + 1},{first + 3}", "tcp:127.0.0.1:90-91,95")
    with server(in_guest(pid, socket.AF_INET, socket.SOCK_STREAM), ("127.0.0.1", 95)):
        add(daemon, name, devices)
        assert ask(("127.0.0.1", first + 3)) == b"HELLO"
        assert not _answers(("127.0.0.1", first))  # nobody is there


def test_a_crowd_and_a_lot(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    """200 at once, more than the server lets wait; and 64 MiB in both directions."""
    name = launch()
    pid = daemon.init_pid(name)
    port = free_port()
    add(daemon, name, proxy(f"tcp:127.0.0.1:{port}", "unix:/tmp/s"))
    with (
        server(socket.socket(socket.AF_UNIX), f"/proc/{pid}/root/tmp/s", shout=False),
        ThreadPoolExecutor(200) as pool,
    ):
        words = [b"%d " % number * 1000 for number in range(200)]
        assert list(pool.map(lambda word: ask(("127.0.0.1", port), word), words)) == words
        data = os.urandom(1 << 20) * 64
        got = bytearray()
        with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as client:
            sender = threading.Thread(target=lambda: (client.sendall(data),
                                                      client.shutdown(socket.SHUT_WR)))  # fmt: skip
            sender.start()
            while part := client.recv(1 << 20):
                got += part
            sender.join()
        assert got == data
        (forwarder,) = forwarders(daemon, name)
        status = Path(f"/proc/{forwarder}/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0])
        assert resident < 64 * 1024, f"{resident} KiB"
        wait_until(lambda: len(os.listdir(f"/proc/{forwarder}/fd")) < 20, 10, "connections closed")


def test_descriptors_pass(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch()
    listen = socket.socket(socket.AF_UNIX)
    listen.settimeout(_PATIENCE_S)
    bind(listen, f"/proc/{daemon.init_pid(name)}/root/tmp/s")
    listen.listen()
    add(daemon, name, proxy(f"unix:{tmp_path}/l", "unix:/tmp/s"))
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as client, listen:
        client.connect(f"{tmp_path}/l")
        packed = array.array("i", [writer])
        client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
        peer = listen.accept()[0]
        with peer:
            _, fds, _, _ = socket.recv_fds(peer, 10, 4)
    os.write(fds[0], b"through")
    assert os.read(reader, 100) == b"through"
    for each in (*fds, reader, writer):
        os.close(each)


def test_the_server_hears_who_asks(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    port = free_port()
    with server(
        in_guest(daemon.init_pid(name), socket.AF_INET, socket.SOCK_STREAM), ("127.0.0.1", 80)
    ):
        add(daemon, name, proxy(f"tcp:127.0.0.1:{port}", "tcp:127.0.0.1:80", proxy_protocol="true"))
        answer = ask(("127.0.0.1", port))
    assert answer.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    assert answer.endswith(b" %d\r\nHELLO" % port)


def test_connections_outlive_the_daemon(own_daemon: Daemon, busybox_image: Path) -> None:
    daemon = own_daemon
    name = _launched(daemon, busybox_image)
    port = free_port()
    sock = in_guest(daemon.init_pid(name), socket.AF_INET, socket.SOCK_STREAM)
    with server(sock, ("127.0.0.1", 80)):
        add(daemon, name, proxy(f"tcp:127.0.0.1:{port}", "tcp:127.0.0.1:80"))
        with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as client:
            for end in (daemon.restart, lambda: os.kill(daemon.supervisor, signal.SIGKILL)):
                client.sendall(b"a")
                assert client.recv(1) == b"A"
                end()
                client.sendall(b"b")
                assert client.recv(1) == b"B"
            before = daemon.supervisors
            wait_until(lambda: len(daemon.supervisors) == 1, 10, f"a new supervisor: {before}")
            other = free_port()
            wait_until(lambda: _is_added(daemon, name, other), 20, "a proxy by the new supervisor")
            assert len(forwarders(daemon, name)) == 1
            client.sendall(b"c")
            assert client.recv(1) == b"C"
        assert ask(("127.0.0.1", other)) == b"HELLO"
        # One that is killed is replaced.
        (old,) = forwarders(daemon, name)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: forwarders(daemon, name) not in ([], [old]), 20, "another forwarder")
        wait_until(lambda: _answers(("127.0.0.1", port)), 20, "it listens again")
    change(daemon, name, "stop")
    assert not _answers(("127.0.0.1", port))


def _launched(daemon: Daemon, image: Path) -> str:
    from tests.support.fixtures import create, import_image

    import_image(daemon, image, "tiny")
    name = create(daemon, "tiny")
    change(daemon, name, "start")
    return name


def _is_added(daemon: Daemon, name: str, port: int) -> bool:
    try:
        add(daemon, name, {"other": proxy(f"tcp:127.0.0.1:{port}", "tcp:127.0.0.1:80")["px"]})
    except ApiError:
        return False
    return True


def _answers(address: object) -> bool:
    try:
        return ask(address) == b"HELLO"
    except OSError:
        return False


def test_an_address_in_use(daemon: Daemon, launch: Launch) -> None:
    """A start fails with the address in the text; a change leaves all as it was."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        devices = proxy(f"tcp:127.0.0.1:{port}", "tcp:127.0.0.1:80")
        name = launch(devices=devices, start=False)
        text = f"Failed to listen on tcp:127.0.0.1:{port}: Address already in use"
        with pytest.raises(ApiError, match=text):
            change(daemon, name, "start")
        assert daemon.status(name) == "Stopped"
        daemon.lxpy("config", "device", "remove", name, "px")
        change(daemon, name, "start")
        other = proxy(f"tcp:127.0.0.1:{free_port()}", "tcp:127.0.0.1:80")["px"]
        with pytest.raises(ApiError, match=text):
            add(daemon, name, {"b": other, **devices})
        assert daemon.api.get(f"/1.0/instances/{name}")["devices"] == {}
        assert not forwarders(daemon, name)
    add(daemon, name, devices)
    assert forwarders(daemon, name)


def test_nat(daemon: Daemon, launch: Launch) -> None:
    """The firewall does it: from this host, from the instance itself, and as long as it runs."""
    network = daemon.api.get("/1.0/profiles/default")["devices"]["eth0"]["network"]
    subnet = daemon.api.get(f"/1.0/networks/{network}")["config"]["ipv4.address"]
    own, prefix = subnet.split("/")
    static = own.rpartition(".")[0] + ".213"
    nic = {"type": "nic", "network": network, "name": "eth0", "ipv4.address": static}
    name = launch(devices={"eth0": nic})
    wait_until(lambda: daemon.address(name) == static, 20, "its address")
    sock = in_guest(daemon.init_pid(name), socket.AF_INET, socket.SOCK_STREAM)
    with server(sock, ("0.0.0.0", 80)):
        add(daemon, name, proxy(f"tcp:{own}:4711-4712", "tcp:0.0.0.0:80", nat="true"))
        assert ask((own, 4711)) == b"HELLO"
        assert ask((own, 4712)) == b"HELLO"
        with in_guest(daemon.init_pid(name), socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((own, 4711))
            client.sendall(b"hello")
            assert client.recv(10) == b"HELLO"
        assert not forwarders(daemon, name)
        assert len(tables(name)) == 1
        daemon.restart()
        assert ask((own, 4711)) == b"HELLO"
    change(daemon, name, "stop")
    assert not tables(name)
    with pytest.raises(ApiError, match="must be one of the instance's static IPv4 addresses"):
        bad = proxy(f"tcp:{own}:4711", "tcp:192.0.2.1:80", nat="true")
        daemon.api.patch(f"/1.0/instances/{name}", {"devices": bad})
        change(daemon, name, "start")


def tables(name: str) -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return [
        line for line in done.stdout.splitlines() if line.endswith(f"_{name}") and "nat" in line
    ]


def test_sessions_of_datagrams(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    port = free_port(socket.SOCK_DGRAM)
    sock = in_guest(daemon.init_pid(name), socket.AF_INET, socket.SOCK_DGRAM)
    with server(sock, ("127.0.0.1", 53)):
        add(daemon, name, proxy(f"udp:127.0.0.1:{port}", "udp:127.0.0.1:53"))
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        for number, client in enumerate(clients):
            client.settimeout(_PATIENCE_S)
            client.connect(("127.0.0.1", port))
            client.send(b"c%d" % number)
        time.sleep(0.1)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"C%d" % number
            client.close()


def test_an_end_without_a_daemon(own_daemon: Daemon, busybox_image: Path, tmp_path: Path) -> None:
    """Nothing is left of an instance that ends while no daemon runs."""
    daemon = own_daemon
    name = _launched(daemon, busybox_image)
    network = daemon.api.get("/1.0/profiles/default")["devices"]["eth0"]["network"]
    own = daemon.api.get(f"/1.0/networks/{network}")["config"]["ipv4.address"].split("/")[0]
    static = own.rpartition(".")[0] + ".213"
    nic = {"type": "nic", "network": network, "name": "eth0", "ipv4.address": static}
    nat = proxy(f"tcp:{own}:4711", "tcp:0.0.0.0:80", nat="true")["px"]
    unix = proxy(f"unix:{tmp_path}/left.sock", "unix:@x")["px"]
    add(daemon, name, {"eth0": nic, "nat": nat, "unix": unix})
    assert tables(name) and (tmp_path / "left.sock").exists()
    pid = daemon.init_pid(name)
    (forwarder,) = forwarders(daemon, name)
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes.alive(forwarder), 10, "the forwarder ends")
    assert not (tmp_path / "left.sock").exists()
    daemon.start()
    assert not tables(name)
    daemon.wait_status(name, "Stopped")
