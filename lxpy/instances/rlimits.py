"""limits.kernel.*: resource limits of init, as setrlimit(2) knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxpy.errors import InvalidConfig

NAMES = frozenset((
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
))  # fmt: skip
UNLIMITED = -1
_PREFIX = "limits.kernel."
_PART = re.compile(r"[0-9]{1,19}|unlimited")


def parse_rlimit(text: str) -> tuple[int, int]:
    """Return soft and hard of "SOFT:HARD" or of one value for both; -1 is unlimited.

    Raises InvalidConfig.
    """
    soft, _, hard = text.partition(":")
    parts = [soft, hard] if ":" in text else [text, text]
    if not all(_PART.fullmatch(part) and _value(part) < 1 << 63 for part in parts):
        raise InvalidConfig(
            f'Invalid value: {text}: use SOFT:HARD or one number for both, or "unlimited"'
        )
    low, high = _value(parts[0]), _value(parts[1])
    if high != UNLIMITED and (low == UNLIMITED or low > high):
        raise InvalidConfig(f"Invalid value: {text}: the soft limit is above the hard one")
    return low, high


def rlimits(config: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return the resource limits of an expanded config by the kernel's names."""
    return {
        key.removeprefix(_PREFIX): parse_rlimit(value)
        for key, value in config.items()
        if value and key.startswith(_PREFIX)
    }


def _value(part: str) -> int:
    return UNLIMITED if part == "unlimited" else int(part)
