"""Secrets by which those who are not trusted get one image, or may send one.

A secret is a token operation. Its first use cancels it; who has used it then may go on for the
seconds that an ended operation is kept, as who downloads asks twice: for the image, then its files.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from lxpy.api.envelope import Status
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Operation, Registry

_DESCRIPTION = "Image download token"


class ImageTokens:
    """The secrets of images."""

    def __init__(self, registry: Registry, lifecycle: Lifecycle) -> None:
        self._registry = registry
        self._lifecycle = lifecycle

    def issue(
        self, project: str, fingerprint: str, metadata: Mapping[str, Any] | None = None
    ) -> Operation:
        """Return a token for an image; its metadata is given back by `redeem`."""
        operation = self._registry.token(
            _DESCRIPTION,
            project=project,
            resources={"images": [_path(fingerprint)]},
            metadata={**(metadata or {}), "secret": token_hex(32)},
        )
        self._lifecycle.emit("image-secret-created", _path(fingerprint), project)
        return operation

    def redeem(self, project: str, fingerprint: str, secret: str) -> dict[str, Any] | None:
        """Return the metadata of the token with that secret, None when there is none."""
        if not secret or not fingerprint:
            return None
        for each in self._registry.tokens(_DESCRIPTION, project):
            known = str(each.metadata["secret"]).encode()
            if _path(fingerprint) in each.resources["images"] and hmac.compare_digest(
                known, secret.encode()
            ):
                if each.status is Status.RUNNING:
                    each.cancel()
                return each.metadata
        return None


def _path(fingerprint: str) -> str:
    return f"/1.0/images/{fingerprint}"
