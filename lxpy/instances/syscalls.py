"""Which system calls an instance may use: its keys, as one seccomp policy.

Source: LXD docs, "Instance options", security.syscalls.*; "System call interception".
"""

from __future__ import annotations

from collections.abc import Mapping

from lxpy.errors import InvalidConfig
from lxpy.kernel import seccomp
from lxpy.units import is_false, is_true

_PREFIX = "security.syscalls."
#: key -> the name it had before LXD 4
OLD_NAMES = {
    f"{_PREFIX}blacklist": f"{_PREFIX}deny",
    f"{_PREFIX}blacklist_compat": f"{_PREFIX}deny_compat",
    f"{_PREFIX}blacklist_default": f"{_PREFIX}deny_default",
    f"{_PREFIX}whitelist": f"{_PREFIX}allow",
}
_TYPE, _CHARACTER, _BLOCK = 0o170000, 0o020000, 0o060000


def _nodes(call: str, mode: int) -> tuple[str, ...]:
    return tuple(
        f"{call} notify [{mode},{kind},SCMP_CMP_MASKED_EQ,{_TYPE}]" for kind in (_CHARACTER, _BLOCK)
    )


#: what can be intercepted -> the calls that somebody else carries out
INTERCEPTED = {
    "mknod": (*_nodes("mknod", 1), *_nodes("mknodat", 2)),
    "sched_setscheduler": ("sched_setscheduler notify",),
    "setxattr": ("setxattr notify [3,1,SCMP_CMP_EQ]",),  # trusted.overlay.opaque is one byte
    "sysinfo": ("sysinfo notify",),
}


def build_policy(config: Mapping[str, str]) -> str:
    """Return the policy of an instance's keys, as text; "" allows everything."""
    if raw := config.get("raw.seccomp"):
        return raw
    if allowed := _get(config, "allow"):
        return _text("allowlist", allowed.splitlines())
    lines = [] if is_false(_get(config, "deny_default")) else list(seccomp.DEFAULT_LINES)
    if is_true(_get(config, "deny_compat")):
        lines.append("reject_compat")
    lines += ["[all]", *_get(config, "deny").splitlines()]
    for name in intercepted(config):
        lines += ["[all]", *INTERCEPTED[name]]
    return _text("denylist errno 1", lines)


def intercepted(config: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the instance wants to have carried out for it."""
    return tuple(name for name in INTERCEPTED if is_true(_get(config, f"intercept.{name}")))


def check_policy(text: str) -> None:
    """Raise InvalidConfig when a policy cannot be used on this host."""
    try:
        seccomp.assemble(text)
    except ValueError as error:
        raise InvalidConfig(f"Invalid seccomp policy: {error}") from error


def check_denied(lines: str) -> None:
    """Raise InvalidConfig for lines that cannot be denied."""
    check_policy(_text("denylist errno 1", lines.splitlines()))


def check_allowed(lines: str) -> None:
    """Raise InvalidConfig for lines with which nothing could run."""
    check_policy(_text("allowlist", lines.splitlines()))


def _text(kind: str, lines: list[str]) -> str:
    return "\n".join(["2", kind, "[all]", *lines])


def _get(config: Mapping[str, str], name: str) -> str:
    """Return a key of security.syscalls, or what it was called before."""
    old = next((o for o, new in OLD_NAMES.items() if new == _PREFIX + name), "")
    return config.get(_PREFIX + name) or config.get(old) or ""
