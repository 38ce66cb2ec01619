"""Operations: their life as listeners see it, waiting, cancelling, sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from lxpy.api.envelope import Status
from lxpy.errors import BadRequest, Failed, Forbidden, NotFound
from lxpy.events.bus import Bus
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry


async def test_the_life_of_an_operation() -> None:
    bus = Bus()
    listener = bus.listen(["operation"], None)
    registry = Registry(bus)

    async def work(operation: Operation) -> None:
        operation.progress("download", "50%")

    begun = registry.spawn("Doing", work, resources={"instances": ["/1.0/instances/c1"]})
    assert begun.describe().status_code == Status.RUNNING
    assert begun.resources["containers"] == ["/1.0/containers/c1"]
    assert await begun.wait(5)
    seen: list[dict[str, Any]] = []
    async for data in listener:
        seen.append(json.loads(data)["metadata"])
        if seen[-1]["status_code"] >= 200:
            break
    assert [each["status"] for each in seen] == ["Pending", "Running", "Running", "Success"]
    assert seen[2]["metadata"] == {"download_progress": "50%"}
    assert seen[-1]["class"] == "task" and seen[-1]["err"] == ""
    assert registry.get(begun.id) is begun


async def test_work_goes_with_whoever_attends() -> None:
    registry = Registry(Bus())
    ended = False

    async def work(_: Operation) -> None:
        nonlocal ended
        try:
            await asyncio.sleep(60)
        finally:
            ended = True

    operation = registry.spawn("Doing", work)
    attending = asyncio.create_task(operation.attend())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    attending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attending
    assert ended and operation.status is Status.CANCELLED


async def test_failure_is_told() -> None:
    registry = Registry(Bus())

    async def refused(_: Operation) -> None:
        raise Failed("no room")

    async def broken(_: Operation) -> None:
        raise ZeroDivisionError

    for work, said in ((refused, "no room"), (broken, "ZeroDivisionError")):
        operation = registry.spawn("Doing", work)
        await operation.wait()
        assert operation.status is Status.FAILURE and said in operation.err


async def test_waiting_has_an_end() -> None:
    registry = Registry(Bus())

    async def work(_: Operation) -> None:
        await asyncio.sleep(60)

    operation = registry.spawn("Doing", work, cancellable=True)
    assert not await operation.wait(0.01)
    registry.cancel(operation.id)
    assert await operation.wait(5)
    assert operation.status is Status.CANCELLED and operation.err
    with pytest.raises(BadRequest, match="Only running"):
        operation.cancel()


async def test_what_cannot_be_cancelled() -> None:
    registry = Registry(Bus())
    go = asyncio.Event()

    async def work(_: Operation) -> None:
        await go.wait()

    operation = registry.spawn("Doing", work)
    with pytest.raises(BadRequest, match="can't be cancelled"):
        operation.cancel()
    with pytest.raises(BadRequest, match="websocket"):
        registry.socket(operation.id, "x")
    go.set()
    await operation.wait()
    with pytest.raises(NotFound):
        registry.get("none")


class Knocked:
    """A session that ends when somebody connects."""

    def __init__(self) -> None:
        self.knock = asyncio.Event()

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"0": "abc", "control": "def"}

    async def attach(self, name: str, channel: Channel) -> None:
        self.knock.set()

    async def run(self, operation: Operation) -> None:
        await self.knock.wait()


async def test_sockets_need_their_secret() -> None:
    registry = Registry(Bus())
    session = Knocked()
    operation = registry.open("Talking", session, metadata={"command": ["true"]})
    described = operation.describe()
    assert described.class_ == "websocket"
    assert described.metadata == {"command": ["true"], "fds": {"0": "abc", "control": "def"}}
    assert registry.socket(operation.id, "def") == (session, "control")
    for secret in ("", "abcd"):
        with pytest.raises(Forbidden):
            registry.socket(operation.id, secret)
    session.knock.set()
    await operation.wait()
    with pytest.raises(BadRequest, match="running"):
        registry.socket(operation.id, "abc")


async def test_projects_have_their_own() -> None:
    registry = Registry(Bus())

    async def work(_: Operation) -> None:
        return

    one = registry.spawn("Doing", work, project="web")
    other = registry.spawn("Doing", work)
    assert list(registry.listed("web")) == [one]
    assert list(registry.listed(None)) == [one, other]
    await registry.close()


async def test_close_gives_work_some_time() -> None:
    registry = Registry(Bus())
    undone = asyncio.Event()

    async def work(_: Operation) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            undone.set()

    operation = registry.spawn("Doing", work)
    await registry.close(grace_s=0.01)
    assert undone.is_set() and operation.status is Status.CANCELLED


async def test_token() -> None:
    """It is good until it is cancelled, and is told of for a while after that."""
    registry = Registry(Bus())
    token = registry.token(
        "Image download token",
        project="p1",
        resources={"images": ["/1.0/images/f"]},
        metadata={"secret": "s"},
    )
    assert token.describe().class_ == "token" and token.describe().may_cancel
    assert token.describe().metadata == {"secret": "s"}
    assert registry.tokens("Image download token", "p1") == [token]
    assert registry.tokens("Image download token", "p2") == []
    assert registry.tokens("Executing operation") == []
    with pytest.raises(BadRequest, match="Only websocket operations"):
        registry.socket(token.id, "s")
    registry.cancel(token.id)
    assert await token.wait(5)
    assert token.status is Status.CANCELLED
    assert registry.tokens("Image download token", "p1") == [token]


async def test_tokens_do_not_keep_the_daemon() -> None:
    registry = Registry(Bus())
    token = registry.token("Image download token", metadata={"secret": "s"})
    async with asyncio.timeout(2):
        await registry.close(grace_s=60)
    assert token.status is Status.CANCELLED
