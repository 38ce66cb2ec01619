"""ConfigKey: one declaration is a key's validation, default, live-update flag and documentation.

Tables of keys live beside what they configure: instances, networks, storage pools, the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address, ip_interface, ip_network

from cronsim import CronSim, CronSimError

from lxpy.errors import InvalidConfig
from lxpy.units import expiry_date, parse_bits, parse_bool, parse_percent, parse_size

Check = Callable[[str], object]
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_CPUS = 65536
_MAX_MTU = 65535
_CPUS_LENGTH = 4096
_CPU_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_MODE = re.compile(r"0?[0-7]{3,4}")
_HWADDR = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_SCHEDULES = frozenset(
    f"@{word}"
    for word in (
        "hourly", "daily", "midnight", "weekly", "monthly", "annually", "yearly", "startup", "never"
    )
)  # fmt: skip

#: the periods of "snapshots.keep"; "last" counts snapshots whenever they were made
KEEP_PERIODS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True, slots=True)
class Type:
    """What values a key takes. `check` raises InvalidConfig; "" always means unset."""

    name: str
    check: Check


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key, or with a single `*` in its name a family of them ("user.*").

    `live` keys take effect on a running object; `scope` says where the key counts ("container").
    """

    name: str
    type: Type
    default: str = ""
    live: bool = False
    description: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """How a table words its refusals; {key}, {value} and {reason} are filled in."""

    unknown: str = "Unknown configuration key: {key}"
    invalid: str = '{reason} (key "{key}")'


@dataclass(frozen=True, slots=True)
class Keys:
    """A table of keys. Built once at import; looking a key up costs one dict access."""

    table: tuple[ConfigKey, ...]
    texts: Texts = Texts()
    _exact: dict[str, ConfigKey] = field(init=False, repr=False, compare=False)
    _families: tuple[tuple[str, str, ConfigKey], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact: dict[str, ConfigKey] = {}
        families: list[tuple[str, str, ConfigKey]] = []
        for key in self.table:
            start, star, end = key.name.partition("*")
            if star:
                families.append((start, end, key))
            else:
                exact[key.name] = key
        families.sort(key=lambda each: len(each[0]) + len(each[1]), reverse=True)
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_families", tuple(families))

    def __iter__(self) -> Iterator[ConfigKey]:
        return iter(self.table)

    def find(self, key: str) -> ConfigKey | None:
        """Return the declaration of a key; the most specific family wins; None when unknown."""
        found = self._exact.get(key)
        if found is not None:
            return found
        for start, end, family in self._families:
            if len(key) > len(start) + len(end) and key.startswith(start) and key.endswith(end):
                return family
        return None

    def check(self, key: str, value: str, texts: Texts | None = None) -> None:
        """Raise InvalidConfig unless the key is known and takes the value; "" unsets it."""
        words = texts or self.texts
        found = self.find(key)
        if found is None:
            raise InvalidConfig(words.unknown.format(key=key, value=value, reason=""))
        if not value:
            return
        try:
            found.type.check(value)
        except InvalidConfig as error:
            text = words.invalid.format(key=key, value=value, reason=error)
            raise InvalidConfig(text) from error

    def validate(self, config: Mapping[str, str], texts: Texts | None = None) -> None:
        """Raise InvalidConfig, worded by `texts`, at the first key or value that is not right."""
        for key, value in config.items():
            self.check(key, value, texts)

    def get(self, config: Mapping[str, str], key: str) -> str:
        """Return the value of a key in `config`, or its default."""
        value = config.get(key)
        if value:
            return value
        found = self.find(key)
        return found.default if found else ""

    def live(self, key: str) -> bool:
        """Whether a change of the key takes effect without a restart."""
        found = self.find(key)
        return found is not None and found.live


def _nothing(value: str) -> None:
    if "\0" in value:
        raise InvalidConfig("Invalid value: it contains a NUL character")


def integer(minimum: int | None = None, maximum: int | None = None) -> Type:
    """Whole numbers within limits, both included."""
    low = -(1 << 63) if minimum is None else minimum
    high = (1 << 63) - 1 if maximum is None else maximum

    def check(value: str) -> int:
        digits = value.removeprefix("-").removeprefix("+")
        if len(digits) > 19 or not digits.isascii() or not digits.isdigit():
            raise InvalidConfig(f'Invalid value for an integer "{value}"')
        if not low <= int(value) <= high:
            limits = f"at least {low}" if maximum is None else f"between {low} and {high}"
            raise InvalidConfig(f'Invalid value for an integer "{value}". Must be {limits}')
        return int(value)

    return Type("integer", check)


def mtu(minimum: int) -> Type:
    """MTUs of network interfaces, in bytes."""

    def check(value: str) -> None:
        if not value.isascii() or not value.isdigit():
            raise InvalidConfig(f'Invalid MTU "{value}"')
        if len(value) > 5 or not minimum <= int(value) <= _MAX_MTU:
            raise InvalidConfig(f'Out of MTU range ({minimum}-{_MAX_MTU}) "{value}"')

    return Type("integer", check)


def choice(*words: str) -> Type:
    """One of a few words."""

    def check(value: str) -> str:
        if value not in words:
            raise InvalidConfig(f'Invalid value "{value}" (not one of [{" ".join(words)}])')
        return value

    return Type("string", check)


def listing(item: Type, separator: str = ",") -> Type:
    """Values of one type, separated; blanks around them do not count."""

    def check(value: str) -> None:
        for part in value.split(separator):
            if not part.strip():
                raise InvalidConfig(f'Invalid value "{value}": an item of the list is empty')
            item.check(part.strip())

    return Type("string", check)


def either(first: Type, *words: str) -> Type:
    """A type, or one of a few words instead ("auto", "none")."""

    def check(value: str) -> None:
        if value in words:
            return
        try:
            first.check(value)
        except InvalidConfig as error:
            raise InvalidConfig(f"{error} (or {', '.join(words)})") from error

    return Type(first.name, check)


def matching(pattern: str, wanted: str) -> Type:
    """Text that matches a regular expression as a whole; `wanted` describes it to users."""
    compiled = re.compile(pattern)

    def check(value: str) -> None:
        if not compiled.fullmatch(value):
            raise InvalidConfig(f'Invalid value "{value}": it takes {wanted}')

    return Type("string", check)


def parse_cpus(text: str) -> list[int]:
    """Return the sorted cpus of "0-3,5". Raises InvalidConfig."""
    cpus: set[int] = set()
    for part in text.split(","):
        match = _CPU_RANGE.fullmatch(part.strip())
        if match is None or len(text) > _CPUS_LENGTH:
            raise InvalidConfig(
                f'Invalid CPU limit syntax: "{text}": use a number, or a set such as "0-3,5"'
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= _MAX_CPUS:
            raise InvalidConfig(f'Invalid CPU limit syntax: "{text}": "{part}" is not a range')
        cpus.update(range(first, last + 1))
    return sorted(cpus)


def _cpu_limit(value: str) -> None:
    if value.isascii() and value.isdigit():
        if len(value) > 5 or not 1 <= int(value) <= _MAX_CPUS:
            raise InvalidConfig(
                f'Invalid CPU limit syntax: "{value}": use at least 1 cpu, or a set such as "0-3,5"'
            )
        return
    parse_cpus(value)


def _memory_limit(value: str) -> None:
    if value.endswith("%"):
        share = parse_percent(value)
        if not 1 <= share <= 100:
            raise InvalidConfig(f"Invalid value: {value}: use between 1% and 100% of the memory")
    elif parse_size(value) == 0:
        raise InvalidConfig(f'Invalid value: {value}: use a size above 0, or "" for no limit')


def split_schedule(text: str) -> list[str]:
    """Return the parts of a schedule: "@daily", "30 4 * * 1-5", or several joined by ", ".

    Raises InvalidConfig.
    """
    words = [word.strip() for word in text.split(",")]
    if all(word.lower() in _SCHEDULES for word in words):
        return [word.lower() for word in words]
    parts = [part.strip() for part in text.split(", ")]
    for part in parts:
        _check_schedule(part)
    return [part.lower() for part in parts]


def _check_schedule(part: str) -> None:
    if part.lower() in _SCHEDULES:
        return
    if part.startswith("@"):
        known = ", ".join(sorted(_SCHEDULES))
        raise InvalidConfig(f'Schedule "{part}" is unknown: use a cron expression, or {known}')
    if len(part.split()) != 5:
        raise InvalidConfig(f"Schedule must be of the form: <minute> <hour> <day-of-month> "
                            f'<month> <day-of-week>, it is "{part}"')  # fmt: skip
    try:
        CronSim(part, _EPOCH)
    except CronSimError as error:
        raise InvalidConfig(f'Schedule "{part}" is not a cron expression: {error}') from error


def parse_keep(text: str) -> dict[str, int]:
    """Return how many snapshots to keep, by period: {"daily": 7, "weekly": 4}; "7" is {"last": 7}.

    Raises InvalidConfig.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        period, equals, count = part.strip().rpartition("=")
        period = period if equals else "last"
        if period not in KEEP_PERIODS or period in found:
            raise InvalidConfig(
                f'Invalid value "{text}": write a number, or each period once: '
                + ",".join(f"{name}=N" for name in KEEP_PERIODS)
            )
        if not (count.isascii() and count.isdigit() and len(count) <= 6 and int(count)):
            raise InvalidConfig(f'Invalid value "{text}": "{count}" is no number from 1 to 999999')
        found[period] = int(count)
    return found


def _hwaddr(value: str) -> None:
    if not _HWADDR.fullmatch(value):
        raise InvalidConfig(
            f'Invalid MAC address, must be 6 bytes of hex separated by colons: "{value}"'
        )


def _mode(value: str) -> None:
    if not _MODE.fullmatch(value):
        raise InvalidConfig(f'Invalid value for an octal file mode: "{value}" (such as "0660")')


def _unix_id(value: str) -> None:
    try:
        UINT32.check(value)
    except InvalidConfig as error:
        raise InvalidConfig(f"Invalid value for a UNIX ID: {error}") from error


def _address(version: int | None, parse: Callable[[str], object], wanted: str) -> Type:
    def check(value: str) -> None:
        try:
            parsed = None if "%" in value else parse(value)  # no scope: it may be any text
        except ValueError:
            parsed = None
        if parsed is None or (version and getattr(parsed, "version", version) != version):
            raise InvalidConfig(f'Not {wanted} "{value}"')

    return Type("string", check)


def _cidr(version: int, parse: Callable[[str], object], wanted: str) -> Type:
    def check(value: str) -> None:
        if "/" not in value or "%" in value:
            raise InvalidConfig(f"invalid CIDR address: {value}: it takes {wanted}")
        try:
            parsed = parse(value)
        except ValueError as error:
            text = f"invalid CIDR address: {value}: it takes {wanted}"
            raise InvalidConfig(text) from error
        if getattr(parsed, "version", version) != version:
            raise InvalidConfig(f'Not {wanted} "{value}"')

    return Type("string", check)


STRING = Type("string", _nothing)
BLOB = Type("blob", _nothing)
BOOL = Type("bool", parse_bool)
INT = integer()
UINT = integer(0)
UINT32 = integer(0, (1 << 32) - 1)
PRIORITY = integer(0, 10)
PORT = integer(1, 65535)
SIZE = Type("string", parse_size)
RATE = Type("string", parse_bits)
PERCENT = Type("string", parse_percent)
MEMORY = Type("string", _memory_limit)
CPUSET = Type("string", parse_cpus)
CPU_LIMIT = Type("string", _cpu_limit)
EXPIRY = Type("string", lambda value: expiry_date(value, _EPOCH))
CRON = Type("string", split_schedule)
KEEP = Type("string", parse_keep)
HWADDR = Type("string", _hwaddr)
MODE = Type("string", _mode)
UNIX_ID = Type("integer", _unix_id)
ADDRESS = _address(None, ip_address, "an IP address")
ADDRESS_V4 = _address(4, ip_address, "an IPv4 address")
ADDRESS_V6 = _address(6, ip_address, "an IPv6 address")
CIDR_V4 = _cidr(4, ip_interface, "an IPv4 address with its subnet (10.0.0.1/24)")
CIDR_V6 = _cidr(6, ip_interface, "an IPv6 address with its subnet (fd42::1/64)")
NETWORK_V4 = _cidr(4, ip_network, "an IPv4 network (10.0.0.0/24)")
NETWORK_V6 = _cidr(6, ip_network, "an IPv6 network (fd42::/64)")


def table(keys: Iterable[ConfigKey], texts: Texts | None = None) -> Keys:
    """Make a table of keys."""
    return Keys(tuple(keys), texts or Texts())
