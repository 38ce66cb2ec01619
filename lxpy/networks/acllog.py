"""What logged rules of ACLs have written to the kernel's log. Source: /dev/kmsg, nf_log_syslog."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

_KMSG = Path("/dev/kmsg")
_RECORD_BYTES = 8192
_LINE = re.compile(r"[0-9]+,[0-9]+,(?P<us>[0-9]+),[^;]*;(?P<text>.*)")
_PREFIX = re.compile(
    r"lxpy acl (?P<acl>\S+) (?P<direction>ingress|egress) (?P<number>\S+) (?P<action>\w+): "
    r"(?P<rest>.*)"
)
_FIELDS = {"PROTO": "proto", "SRC": "src", "DST": "dst", "SPT": "src_port", "DPT": "dst_port",
           "TYPE": "icmp_type", "CODE": "icmp_code", "IN": "in", "OUT": "out"}  # fmt: skip


def read(name: str) -> str:
    """Return the log of an ACL, a line of JSON for each packet. Blocking. Raises OSError."""
    boot_s = datetime.now(UTC).timestamp() - _uptime_s()
    return "".join(f"{json.dumps(each)}\n" for each in entries(_records(), name, boot_s))


def _uptime_s() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def _records() -> Iterator[str]:
    """Yield the records that the kernel still has."""
    file = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                yield os.read(file, _RECORD_BYTES).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # it was overwritten meanwhile: the next is another one
                continue
    finally:
        os.close(file)


def entries(records: Iterable[str], name: str, boot_s: float) -> Iterator[dict[str, str]]:
    """Yield what records say of an ACL; `boot_s` is when this host was started."""
    for record in records:
        line = _LINE.match(record)
        found = _PREFIX.match(line["text"]) if line else None
        if line is None or found is None or found["acl"] != name:
            continue
        when = datetime.fromtimestamp(boot_s + int(line["us"]) / 1e6, UTC)
        words = dict(word.split("=", 1) for word in found["rest"].split() if "=" in word)
        yield {
            "time": when.isoformat(timespec="milliseconds"),
            "direction": found["direction"],
            "rule": found["number"],
            "action": found["action"],
            **{name: words[key] for key, name in _FIELDS.items() if words.get(key)},
        }
