"""A websocket as operations see it, whatever library carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lxpy.operations.registry import Operation


class Channel(Protocol):
    """One connected websocket."""

    async def receive(self) -> bytes | str | None:
        """Return the next message: bytes, or str from a text frame; None at the end."""

    async def send(self, data: bytes | memoryview) -> None:
        """Send a binary frame; a channel that is closed swallows it."""

    async def send_text(self, text: str) -> None:
        """Send a text frame; a channel that is closed swallows it."""

    async def close(self) -> None:
        """Close the websocket. Idempotent."""


class Session(Protocol):
    """What an operation of class websocket does with its sockets."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secret of each socket, by the socket's name ("0", "control")."""

    async def attach(self, name: str, channel: Channel) -> None:
        """Serve one socket; returns when the session has no more use for it.

        Raises BadRequest when that socket is taken.
        """

    async def run(self, operation: Operation) -> None:
        """Do the work; its end is the operation's."""
