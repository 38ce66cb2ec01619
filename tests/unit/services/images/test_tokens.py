"""Secrets of images: good for one image of one project, and for a while after the first use."""

from __future__ import annotations

import asyncio

from lxpy.api.envelope import Status
from lxpy.events.bus import Bus
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Registry
from lxpy.services.images.tokens import ImageTokens

ONE, TWO = "1" * 64, "2" * 64


async def test_redeem() -> None:
    bus = Bus()
    tokens = ImageTokens(Registry(bus), Lifecycle(bus))
    token = tokens.issue("p1", ONE, {"public": True})
    secret = token.metadata["secret"]
    for project, fingerprint, tried in (
        ("p2", ONE, secret),
        ("p1", TWO, secret),
        ("p1", ONE[:12], secret),
        ("p1", ONE, ""),
        ("p1", ONE, secret[:-1]),
        ("p1", "", secret),
        ("p1", ONE, "ü"),
    ):
        assert tokens.redeem(project, fingerprint, tried) is None
    assert token.status is Status.RUNNING
    assert tokens.redeem("p1", ONE, secret) == {"public": True, "secret": secret}
    await token.wait(5)
    assert token.status is Status.CANCELLED
    assert tokens.redeem("p1", ONE, secret) is not None


async def test_redeemed_twice_at_once() -> None:
    bus = Bus()
    tokens = ImageTokens(Registry(bus), Lifecycle(bus))
    token = tokens.issue("default", ONE)
    await asyncio.sleep(0)
    for _ in range(3):  # the first use has not been noticed yet
        assert tokens.redeem("default", ONE, token.metadata["secret"]) is not None
