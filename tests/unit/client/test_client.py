"""HTTP and websockets over a unix socket, against a server that answers as it is told."""

from __future__ import annotations

import json
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lxpy.client.client import Client
from lxpy.client.transport import Connection, Upload, query, quote
from lxpy.client.websocket import BINARY, TEXT, WebSocket, request
from lxpy.errors import Refused, Unreachable

Answering = Callable[[socket.socket], None]
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
)


class Server:
    """Accepts connections and lets a function answer each."""

    def __init__(self, path: Path, answer: Answering) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Answering], Client]]:
    servers: list[Server] = []

    def make(answer: Answering) -> Client:
        servers.append(Server(tmp_path / f"{len(servers)}.socket", answer))
        return Client(servers[-1].path)

    yield make
    for server in servers:
        server.close()


def head_of(connection: socket.socket) -> bytes:
    """Read a request's head."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    return data


def saying(*pieces: bytes) -> Answering:
    """An answer in pieces, each a packet of its own."""

    def answer(connection: socket.socket) -> None:
        head_of(connection)
        for piece in pieces:
            connection.sendall(piece)

    return answer


def envelope(**fields: object) -> bytes:
    body = json.dumps({"type": "sync", "status_code": 200, **fields}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: abc\r\n\r\n%s" % (len(body), body)


Serve = Callable[[Answering], Client]


def test_object(serve: Serve) -> None:
    client = serve(saying(envelope(metadata={"a": 1})))
    assert client.fetch("/1.0") == ({"a": 1}, "abc")


def test_body_in_pieces(serve: Serve) -> None:
    whole = envelope(metadata=list(range(1000)))
    client = serve(saying(whole[:10], whole[10:70], whole[70:]))
    assert client.get("/1.0") == list(range(1000))


def test_a_body_of_unknown_length(serve: Serve) -> None:
    seen = bytearray()

    def answer(connection: socket.socket) -> None:
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen.extend(connection.recv(4096))
        connection.sendall(envelope(metadata={}))

    serve(answer).ask("POST", "/1.0/x", Upload(-1, iter([b"ab", b"", b"c" * 20])))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in seen
    assert seen.endswith(b"\r\n\r\n2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n")


def test_chunked(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = serve(saying(head, b"5\r\nhello\r\n", b"6;x=y\r\n world", b"\r\n0\r\n\r\n"))
    assert client.download("/x").read() == b"hello world"


def test_until_the_end(serve: Serve) -> None:
    client = serve(saying(b"HTTP/1.0 200 OK\r\n\r\n", b"all ", b"of it"))
    assert client.download("/x").read() == b"all of it"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "within an answer"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops", "oops"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", "HTTP status 502"),
    ],
)
def test_broken_answers(serve: Serve, answer: bytes, text: str) -> None:
    client = serve(saying(answer))
    with pytest.raises(Refused, match=text):
        client.get("/1.0")


def test_error_envelope(serve: Serve) -> None:
    body = b'{"type":"error","error":"Instance not found","error_code":404}'
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    client = serve(saying(answer))
    with pytest.raises(Refused, match="Instance not found") as caught:
        client.get("/1.0/instances/x")
    assert caught.value.code == 404
    assert client.find("/1.0/instances/x") is None


def test_failed_operation(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        if b"/wait" in head_of(connection):
            done = {"id": "1", "status_code": 400, "status": "Failure", "err": "it broke"}
            connection.sendall(envelope(metadata=done))
        else:
            connection.sendall(envelope(type="async", metadata={"id": "1", "status_code": 103}))

    client = serve(answer)
    with pytest.raises(Refused, match="it broke"):
        client.change("DELETE", "/1.0/instances/c1")
    assert client.wait({"id": "1"})["status"] == "Failure"


def test_refused_while_uploading(serve: Serve) -> None:
    """The answer is read although the server did not want the whole body."""
    body = b'{"type":"error","error":"No space left","error_code":500}'
    answer = b"HTTP/1.1 500 Error\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    client = serve(saying(answer))
    pieces = (b"x" * 65536 for _ in range(400))
    with pytest.raises(Refused, match="No space left|without an answer"):
        client.ask("POST", "/1.0/images", Upload(400 * 65536, pieces))


def test_project_and_queries() -> None:
    client = Client("/nowhere", "web")
    assert client.target("/1.0/x") == "/1.0/x?project=web"
    assert client.target("/1.0/x?a=b", {"c": "d e"}) == "/1.0/x?a=b&project=web&c=d%20e"
    assert client.target("/1.0/x", {"all-projects": "true"}) == "/1.0/x?all-projects=true"
    assert query({"a": "", "b": "1&2"}) == "?b=1%262"
    assert quote("debian/13") == "debian%2F13"
    assert quote("ü-a_b.c~d") == "%C3%BC-a_b.c~d"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="Cannot reach lxpyd at .*: No such file.*Start it with"):
        Client(str(tmp_path / "no.socket")).get("/1.0")
    with pytest.raises(Unreachable):
        Client(str(tmp_path / ("d" * 200) / "no.socket")).get("/1.0")


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame as servers send them: unmasked."""
    head = bytes(((0x80 if final else 0) | opcode,))
    if len(payload) < 126:
        head += bytes((len(payload),))
    elif len(payload) < 65536:
        head += bytes((126,)) + len(payload).to_bytes(2, "big")
    else:
        head += bytes((127,)) + len(payload).to_bytes(8, "big")
    return head + payload


def received(websocket: WebSocket) -> list[tuple[int, bytes]]:
    """Everything until the peer closes."""
    found = list(websocket.messages())
    poll = select.poll()
    poll.register(websocket, select.POLLIN)
    while not websocket.closed:
        assert poll.poll(5000), "nothing came"
        found += websocket.receive()
    return found


def test_messages(serve: Serve) -> None:
    big = bytes(range(256)) * 1024
    client = serve(
        saying(
            UPGRADE + frame(BINARY, b"with the handshake"),
            frame(TEXT, b""),
            frame(BINARY, big)[:1000],
            frame(BINARY, big)[1000:],
            frame(9, b"ping"),
            frame(TEXT, b"one ", final=False) + frame(9, b"") + frame(0, b"two"),
            frame(8, b"\x03\xe8"),
        )
    )
    (websocket,) = client.websockets("/ws")
    assert received(websocket) == [
        (BINARY, b"with the handshake"),
        (TEXT, b""),
        (BINARY, big),
        (TEXT, b"one two"),
    ]
    websocket.close()
    websocket.close()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_what_is_sent(serve: Serve, size: int) -> None:
    """The server gets masked frames that hold what was sent."""
    payload = bytes(n * 7 % 256 for n in range(size))
    got = bytearray()
    done = threading.Event()

    def answer(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(UPGRADE)
        while data := connection.recv(65536):
            got.extend(data)
        done.set()

    client = serve(answer)
    connection = Connection(client.path)
    request(connection, "/ws")
    websocket = WebSocket(connection)
    websocket.send(payload, BINARY)
    connection.close()
    assert done.wait(5)
    assert got[0] == 0x80 | BINARY and got[1] & 0x80
    start = {126: 4, 127: 10}.get(got[1] & 0x7F, 2)
    key, masked = got[start : start + 4], got[start + 4 :]
    assert bytes(byte ^ key[n % 4] for n, byte in enumerate(masked)) == payload


def test_refused_upgrade(serve: Serve) -> None:
    body = b'{"type":"error","error":"not authorized","error_code":403}'
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with pytest.raises(Refused, match="not authorized"):
        serve(saying(answer)).events()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C counts, also where the tests run in the background, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels_then_leaves(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The first Ctrl-C asks the server to cancel; when it can't, the second one stops waiting."""
    asked: list[str] = []
    refusal = b'{"type":"error","error":"This operation can\'t be cancelled","error_code":400}'
    left = threading.Event()

    def answer(connection: socket.socket) -> None:
        head = head_of(connection).decode()
        asked.append(head.split(" HTTP")[0])
        if head.startswith("DELETE"):
            size = len(refusal)
            connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % size + refusal)
        else:
            threading.Thread(target=hold, args=(connection.dup(),)).start()
        # The second one must not come while the first is still being dealt with.
        delay_s = 0.5 if head.startswith("DELETE") else 0.3
        # To the thread that waits: taken by another one, it would not wake it up.
        main = threading.main_thread().ident
        threading.Timer(delay_s, signal.pthread_kill, (main, signal.SIGINT)).start()

    def hold(connection: socket.socket) -> None:
        with connection:
            left.wait(30)

    client = serve(answer)
    with pytest.raises(KeyboardInterrupt):
        client.wait({"id": "7"})
    left.set()
    assert asked == ["GET /1.0/operations/7/wait?timeout=-1", "DELETE /1.0/operations/7"]
    assert "can't be cancelled. It goes on; press Ctrl-C again" in capsys.readouterr().err
