"""Two servers meet: sockets that come or are opened, and work on both sides until one says the end.

Who waits has an operation of class websocket, whose metadata are the secrets by the names of the
sockets; who opens them has a task. Source: LXD docs, "REST API", "Migration".
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from lxpy.client.dial import dialed
from lxpy.errors import BadRequest, Failed, LxpyError
from lxpy.migration.frames import lost
from lxpy.migration.messages import Control, Header
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry, Resources
from lxpy.services.instances.streams import Sockets

_SOCKETS = ("control", "fs")
_COME_S = 30.0
#: what is done when both sockets, control and fs, are there
Work = Callable[[Operation, Channel, Channel], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that waits: its operation's URL, the secrets of its sockets, its certificate."""

    operation: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""

    def check(self) -> None:
        """Raise BadRequest unless all is there to open its sockets."""
        missing = [name for name in _SOCKETS if not self.secrets.get(name)]
        if not self.operation or missing:
            what = "operation" if not self.operation else f'secret "{missing[0]}"'
            raise BadRequest(f"Missing {what} of the server to connect to")


class Meeting:
    """The session of an operation that waits for the sockets."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._sockets = Sockets({name: secrets.token_hex(32) for name in _SOCKETS})
        self._over = asyncio.Event()

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secret of each socket."""
        return self._sockets.secrets

    async def attach(self, name: str, channel: Channel) -> None:
        """Take a socket until the end of the work. Raises BadRequest when that one is there."""
        if not self._sockets.add(name, channel):
            raise BadRequest(f'The socket "{name}" is connected already')
        await self._over.wait()

    async def run(self, operation: Operation) -> None:
        """Wait for the sockets, do the work. Raises Failed when they do not come."""
        try:
            if not await self._sockets.wait(_SOCKETS, _COME_S):
                raise Failed(f"No server has connected within {_COME_S:g} s")
            await self._work(operation, self._sockets["control"], self._sockets["fs"])
        finally:
            await self._sockets.close()
            self._over.set()


def meet(
    registry: Registry,
    description: str,
    work: Work,
    peer: Peer | None,
    *,
    project: str,
    resources: Resources,
) -> Operation:
    """Start work with another server: one that comes, or `peer`, which waits.

    Raises BadRequest when something is missing of the peer.
    """
    if peer is None:
        meeting = Meeting(work)
        return registry.meet(description, meeting, project=project, resources=resources)
    peer.check()

    async def go(operation: Operation) -> None:
        chosen = {name: peer.secrets[name] for name in _SOCKETS}
        async with dialed(peer.operation, chosen, peer.certificate) as channels:
            await work(operation, channels["control"], channels["fs"])

    return registry.spawn(description, go, project=project, resources=resources, cancellable=True)


async def header(control: Channel) -> Header:
    """Return what the other server offers or takes. Raises Failed, with its reason if it says."""
    message = await control.receive()
    if not isinstance(message, bytes):
        raise lost()
    refusal = Control.decode(message).message  # in a header, that field is no text
    if refusal:
        raise Failed(refusal)
    return Header.decode(message)


async def send_all(control: Channel, transfer: Awaitable[None]) -> None:
    """Transfer, then wait for the sink to say that it has everything. Raises Failed."""
    listening = asyncio.ensure_future(control.receive())
    try:
        await _unless_refused(listening, transfer)
        _check(await listening)
    except BaseException as error:
        await _refuse(control, error)
        raise
    finally:
        listening.cancel()


async def receive_all(control: Channel, transfer: Awaitable[None]) -> None:
    """Take what comes, all of it, then tell the source so. Raises Failed."""
    listening = asyncio.ensure_future(control.receive())
    try:
        await _unless_refused(listening, transfer)
        await control.send(Control(True).encode())
    except BaseException as error:
        await _refuse(control, error)
        raise
    finally:
        listening.cancel()


async def _unless_refused(
    listening: asyncio.Future[bytes | str | None], transfer: Awaitable[None]
) -> None:
    """Await the transfer; a message that comes meanwhile ends it, unless it says success."""
    working = asyncio.ensure_future(transfer)
    try:
        await asyncio.wait((listening, working), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            _check(listening.result())
        await working
    finally:
        working.cancel()
        await asyncio.wait((working,))
        if not working.cancelled():
            working.exception()  # seen: what the other server says is what counts


def _check(message: bytes | str | None) -> None:
    """Raise Failed unless a message says success."""
    if not isinstance(message, bytes):
        raise lost()
    verdict = Control.decode(message)
    if not verdict.success:
        raise Failed(verdict.message or "The other server has given up without saying why")


async def _refuse(control: Channel, error: BaseException) -> None:
    text = str(error) if isinstance(error, LxpyError) else "The transfer was cancelled or broke"
    await control.send(Control(False, text).encode())
