"""Operations of two servers that speak with each other through us: websockets joined in pairs."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Client, Json
    from lxpy.client.websocket import WebSocket

#: what may wait for one server before the other one is read no more
_MAX_PENDING_BYTES = 4 << 20


def relay(source: tuple[Client, Json], target: tuple[Client, Json]) -> None:
    """Pass on what both say until they have closed. Operations are as they began.

    Raises Refused, Unreachable.
    """
    names = [name for name, secret in source[1]["metadata"].items() if isinstance(secret, str)]
    here = _connected(*source, names)
    try:
        there = _connected(*target, names)
        try:
            _pass_on({a: b for x, y in zip(here, there, strict=True) for a, b in ((x, y), (y, x))})
        finally:
            for each in there:
                each.close()
    finally:
        for each in here:
            each.close()


def _connected(client: Client, operation: Json, names: list[str]) -> list[WebSocket]:
    path = f"/1.0/operations/{operation['id']}/websocket"
    secrets = operation["metadata"]
    return client.websockets(*(client.target(path, {"secret": secrets[name]}) for name in names))


def _pass_on(peers: dict[WebSocket, WebSocket]) -> None:
    for each, peer in peers.items():  # what has come with the answer to the handshake
        for opcode, payload in each.messages():
            peer.queue(payload, opcode)
    while open_ones := _open(peers):
        poll = select.poll()
        by_number = {each.fileno(): each for each in open_ones}
        for each in open_ones:
            wanted = select.POLLOUT if each.pending else 0
            if peers[each].pending < _MAX_PENDING_BYTES:
                wanted |= select.POLLIN
            poll.register(each, wanted)
        for number, event in poll.poll():
            each = by_number[number]
            if each.fileno() < 0:
                continue
            if event & select.POLLOUT:
                each.flush()
            if event & ~select.POLLOUT:
                _read(each, peers[each])


def _open(peers: dict[WebSocket, WebSocket]) -> list[WebSocket]:
    """Return those that are open, but for those that have got the last word of a closed one."""
    for each, peer in peers.items():
        if peer.fileno() < 0 and not each.pending:
            each.close()
    return [each for each in peers if each.fileno() >= 0]


def _read(each: WebSocket, peer: WebSocket) -> None:
    for opcode, payload in each.receive():
        if not peer.closed:
            peer.queue(payload, opcode)
    if each.closed:
        each.close()
