"""Seccomp policies as text, in the words of liblxc: read and checked, not yet assembled.

    2                                   the version; "1" is a list of numbers to allow
    denylist [errno N|kill]             or allowlist: what happens to the calls that are not allowed
    reject_force_umount                 no umount2 with MNT_FORCE
    reject_compat                       (ours) no system calls of 32 bit programs
    [all]                               for which instruction set, until the next of these
    mknod errno 1                       a call, what happens, and for which arguments:
    bpf notify [0,5,SCMP_CMP_EQ]        [index,value,comparison] or [index,value,comparison,mask]

Source: lxc.container.conf(5), "Seccomp configuration"; LXD docs, "System call interception".
"""

from __future__ import annotations

import re

ALLOW = 0x7FFF0000
LOG = 0x7FFC0000
NOTIFY = 0x7FC00000
ERRNO = 0x00050000
TRAP = 0x00030000
KILL_THREAD = 0x00000000
KILL = 0x80000000

_MAX_BYTES = 1 << 16
_ACTIONS = {"allow": ALLOW, "notify": NOTIFY, "trap": TRAP, "kill": KILL, "log": LOG}
_LISTS = {"denylist": False, "blacklist": False, "allowlist": True, "whitelist": True}
#: sections -> names of our tables of system calls
_SECTIONS = {
    "all": "", "x86_64": "x86_64", "x86": "i386", "i386": "i386", "arm64": "aarch64",
    "aarch64": "aarch64",
}  # fmt: skip
#: those of other processors, and x32, which is always refused
_ELSEWHERE = ("x32", "arm", "ppc", "ppc64", "ppc64le", "s390x", "mips", "mips64", "riscv64")
COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_ARGUMENT = re.compile(
    r"\[\s*([0-5])\s*,\s*(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\s*,\s*SCMP_CMP_([A-Z_]+)\s*"
    r"(?:,\s*(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\s*)?\]"
)
_NAME = re.compile(r"[a-z_][a-z0-9_]*|[0-9]{1,4}")


class Argument:
    """A comparison of one argument: with `MASKED_EQ` of its bits that are in `mask`."""

    __slots__ = ("comparison", "index", "mask", "value")

    def __init__(self, index: int, value: int, comparison: str, mask: int) -> None:
        self.index = index
        self.value = value
        self.comparison = comparison
        self.mask = mask


class Rule:
    """What happens to a call: its name or number, `table` "" for every instruction set."""

    __slots__ = ("action", "arguments", "name", "table")

    def __init__(self, table: str, name: str, action: int, arguments: list[Argument]) -> None:
        self.table = table
        self.name = name
        self.action = action
        self.arguments = arguments


class Policy:
    """Rules in their order, and what happens to the rest."""

    __slots__ = ("compat", "default", "rejects_force_umount", "rules")

    def __init__(self) -> None:
        self.default = ALLOW
        self.rules: list[Rule] = []
        self.rejects_force_umount = False
        self.compat = True

    @property
    def notifies(self) -> bool:
        """Whether there are calls that somebody else carries out."""
        return any(rule.action == NOTIFY for rule in self.rules)


def parse(text: str) -> Policy:
    """Read a policy. Raises ValueError naming the line that is wrong."""
    if len(text) > _MAX_BYTES:
        raise ValueError(f"it is longer than {_MAX_BYTES} characters")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines or lines[0] not in ("1", "2"):
        raise ValueError('the first line is the version, "1" or "2"')
    if len(lines) < 2 or lines[1].split()[0] not in _LISTS:
        raise ValueError("the second line is allowlist or denylist")
    policy = Policy()
    if lines[0] == "1":
        _numbers(policy, lines)
    else:
        _calls(policy, lines)
    return policy


def _numbers(policy: Policy, lines: list[str]) -> None:
    if not _LISTS[lines[1]]:
        raise ValueError("version 1 is for allowlists")
    policy.default = KILL
    for line in lines[2:]:
        if not line.isascii() or not line.isdigit() or len(line) > 4:
            raise ValueError(f'"{line}" is no number of a system call')
        policy.rules.append(Rule("", line, ALLOW, []))


def _calls(policy: Policy, lines: list[str]) -> None:
    kind, _, said = lines[1].partition(" ")
    allows = _LISTS[kind]
    default, action = (KILL, ALLOW) if allows else (ALLOW, KILL)
    if said and allows:
        default = _action(said.split())[0]
    elif said:
        action = _action(said.split())[0]
    policy.default = default
    table: str | None = ""
    for line in lines[2:]:
        if line.startswith("[") and line.endswith("]"):
            table = _section(line[1:-1].strip())
        elif line == "reject_force_umount":
            policy.rejects_force_umount = True
        elif line == "reject_compat":
            policy.compat = False
        elif table is not None:
            policy.rules.append(_rule(table, line, action))


def _section(name: str) -> str | None:
    """Return the table of a section, None for one of another processor."""
    if name in _SECTIONS:
        return _SECTIONS[name]
    if name in _ELSEWHERE:
        return None
    raise ValueError(f'"[{name}]" is no instruction set')


def _rule(table: str, line: str, action: int) -> Rule:
    head, bracket, rest = line.partition("[")
    words = head.split()
    if not words or not _NAME.fullmatch(words[0]):
        raise ValueError(f'"{line}" does not begin with a system call')
    if words[1:]:
        action, left = _action(words[1:])
        if left:
            raise ValueError(f'"{line}": "{left[0]}" is too much')
    return Rule(table, words[0], action, _arguments(line, bracket + rest))


def _arguments(line: str, text: str) -> list[Argument]:
    found = []
    position = 0
    while position < len(text):
        match = _ARGUMENT.match(text, position)
        if match is None or match[3] not in COMPARISONS:
            raise ValueError(f'"{line}": write an argument as [index,value,SCMP_CMP_EQ]')
        value, mask = int(match[2], 0), int(match[4] or "0", 0)
        if max(value, mask) >= 1 << 64:
            raise ValueError(f'"{line}": an argument has 64 bits')
        if (match[3] == "MASKED_EQ") != (match[4] is not None):
            raise ValueError(f'"{line}": a mask goes with SCMP_CMP_MASKED_EQ, and only with it')
        found.append(Argument(int(match[1]), value, match[3], mask))
        position = match.end()
        while position < len(text) and text[position] in " ,":
            position += 1
    return found


def _action(words: list[str]) -> tuple[int, list[str]]:
    """Return an action and the words after it."""
    if words[0] in _ACTIONS:
        return _ACTIONS[words[0]], words[1:]
    number = words[1] if words[0] == "errno" and len(words) > 1 else ""
    if number.isascii() and number.isdigit() and int(number) < 4096:
        return ERRNO | int(number), words[2:]
    raise ValueError(f'"{" ".join(words)}" is none of allow, errno NUMBER, kill, log, notify, trap')
