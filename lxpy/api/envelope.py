"""The three replies every endpoint gives, and LXD's status codes.

Source: LXD docs, "REST API", "Return values" and "Status codes".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Literal

from msgspec import Struct


class Status(IntEnum):
    """Codes of operations and instances; from 200 on an operation is over."""

    OPERATION_CREATED = 100
    STARTED = 101
    STOPPED = 102
    RUNNING = 103
    CANCELLING = 104
    PENDING = 105
    STARTING = 106
    STOPPING = 107
    ABORTING = 108
    FREEZING = 109
    FROZEN = 110
    THAWED = 111
    ERROR = 112
    READY = 113
    SUCCESS = 200
    FAILURE = 400
    CANCELLED = 401

    @property
    def text(self) -> str:
        """The words that clients show and parse."""
        return self.name.replace("_", " ").capitalize()

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens."""
        return self >= 200


class Reply(Struct, kw_only=True):
    """The envelope: all seven keys are always there."""

    type: Literal["sync", "async", "error"]
    status: str = ""
    status_code: int = 0
    operation: str = ""
    error_code: int = 0
    error: str = ""
    metadata: Any = None  # whatever the endpoint returns


def sync(metadata: Any) -> Reply:
    """Wrap a result."""
    return Reply(type="sync", status="Success", status_code=200, metadata=metadata)


def accepted(url: str, operation: Any) -> Reply:
    """Wrap an operation that has been started."""
    created = Status.OPERATION_CREATED
    return Reply(
        type="async", status=created.text, status_code=created, operation=url, metadata=operation
    )


def error(code: int, text: str) -> Reply:
    """Wrap an error; clients show `text` as it is."""
    return Reply(type="error", error_code=code, error=text)
