"""Operations: work that goes on after its request was answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field


class Operation(Struct, kw_only=True):
    """One operation. `class` is task, websocket or token."""

    id: str
    class_: str = field(name="class")
    description: str
    created_at: datetime
    updated_at: datetime
    status: str
    status_code: int
    resources: dict[str, list[str]] | None
    metadata: dict[str, Any] | None
    may_cancel: bool
    err: str
    location: str = "none"
