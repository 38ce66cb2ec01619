"""Declared keys: validation in LXD's words, families, documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy import keys
from lxpy.errors import InvalidConfig
from lxpy.instances.pinning import format_cpus
from lxpy.keys import ConfigKey, Texts, Type

TABLE = keys.table(
    (
        ConfigKey("on", keys.BOOL, "true", live=True, description="Whether"),
        ConfigKey("many", keys.INT),
        ConfigKey("user.*", keys.STRING),
        ConfigKey("nic.*.hwaddr", keys.HWADDR),
        ConfigKey("nic.*", keys.STRING),
    )
)


def test_known_keys_pass() -> None:
    TABLE.validate({"on": "", "many": "-3", "user.a.b": "x", "nic.a.b.hwaddr": "00:16:3E:01:02:03"})


def test_unknown_key() -> None:
    for key in ("off", "user.", "user", "on.x", ""):
        with pytest.raises(InvalidConfig, match=f"^Unknown configuration key: {key}$"):
            TABLE.validate({key: "x"})


def test_wrong_value_names_value_and_key() -> None:
    with pytest.raises(InvalidConfig, match=r'^Invalid value for a boolean "x": .*\(key "on"\)$'):
        TABLE.validate({"on": "x"})


def test_the_most_specific_family_counts() -> None:
    found = TABLE.find("nic.eth0.hwaddr")
    assert found is not None
    assert found.name == "nic.*.hwaddr"
    with pytest.raises(InvalidConfig):
        TABLE.validate({"nic.eth0.hwaddr": "x"})
    TABLE.validate({"nic.eth0.mtu": "x"})


def test_texts_of_a_table() -> None:
    texts = Texts('Invalid option for network "n" option "{key}"', "{key}={value}: {reason}")
    with pytest.raises(InvalidConfig, match='^Invalid option for network "n" option "a{}"$'):
        TABLE.validate({"a{}": "{value}"}, texts)
    with pytest.raises(InvalidConfig, match="^many={x}: Invalid value for an integer"):
        TABLE.validate({"many": "{x}"}, texts)


def test_defaults_and_live() -> None:
    assert TABLE.get({}, "on") == "true"
    assert TABLE.get({"on": ""}, "on") == "true"
    assert TABLE.get({"on": "no"}, "on") == "no"
    assert TABLE.get({}, "nope") == ""
    assert TABLE.live("on")
    assert not TABLE.live("many")
    assert not TABLE.live("nope")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (keys.INT, ["0", "-1", "9223372036854775807"], ["x", "1.5", "9223372036854775808", "--1"]),
        (keys.UINT, ["0", "7"], ["-1", "+-1"]),
        (keys.PRIORITY, ["0", "10"], ["11", "-1"]),
        (keys.PORT, ["1", "65535"], ["0", "65536"]),
        (keys.UINT32, ["4294967295"], ["4294967296"]),
        (keys.CPU_LIMIT, ["1", "0-3", "0,2-3"], ["0", "x", "3-1", "1,", "-", "0-99999999"]),
        (keys.CPUSET, ["0", "0-3,5"], ["", "a", "5-", "99999-99999"]),
        (keys.MEMORY, ["1", "512MiB", "50%", "100%"], ["0", "0MB", "101%", "0%", "x%", "lots"]),
        (keys.SIZE, ["0", "1GiB"], ["1G"]),
        (keys.RATE, ["1Mbit"], ["1MB"]),
        (keys.PERCENT, ["1%"], ["1"]),
        (keys.EXPIRY, ["1d"], ["x"]),
        (keys.MODE, ["0660", "644", "0755"], ["888", "7", "0o660"]),
        (keys.HWADDR, ["00:16:3e:aa:bb:cc"], ["00:16:3e:aa:bb", "zz:16:3e:aa:bb:cc"]),
        (keys.ADDRESS, ["10.0.0.1", "fd42::1"], ["10.0.0", "10.0.0.1/24"]),
        (keys.ADDRESS_V4, ["10.0.0.1"], ["fd42::1", "10.0.0.256"]),
        (keys.ADDRESS_V6, ["fd42::1"], ["10.0.0.1"]),
        (keys.CIDR_V4, ["10.0.0.1/24"], ["10.0.0.1", "10.0.0.1/33", "fd42::1/64"]),
        (keys.CIDR_V6, ["fd42::1/64"], ["10.0.0.1/24"]),
        (keys.NETWORK_V4, ["10.0.0.0/24"], ["10.0.0.1/24", "10.0.0.0"]),
        (keys.NETWORK_V6, ["fd42::/64"], ["fd42::1/64"]),
        (keys.STRING, ["anything\n"], ["a\0b"]),
        (keys.choice("a", "b"), ["a"], ["c", "A"]),
        (keys.either(keys.CIDR_V4, "auto", "none"), ["auto", "10.0.0.1/8"], ["maybe"]),
        (keys.listing(keys.PORT), ["1", "1, 2"], ["1,", "1,x"]),
        (keys.matching("[a-z]+", "letters"), ["abc"], ["Abc", "abc\n"]),
    ],
)  # fmt: skip
def test_types(kind: Type, good: list[str], bad: list[str]) -> None:
    for value in good:
        kind.check(value)
    for value in bad:
        with pytest.raises(InvalidConfig):
            kind.check(value)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("@Daily", ["@daily"]),
        ("@hourly,@startup", ["@hourly", "@startup"]),
        ("@never", ["@never"]),
        ("0,30 6 * * *", ["0,30 6 * * *"]),
        ("*/5 1-3 * * MON", ["*/5 1-3 * * mon"]),
        ("0 6 * * *, @startup, 0 18 * * *", ["0 6 * * *", "@startup", "0 18 * * *"]),
    ],
)
def test_schedules(value: str, parts: list[str]) -> None:
    keys.CRON.check(value)
    assert keys.split_schedule(value) == parts


@pytest.mark.parametrize("value", ["@often", "@daily,0 6 * * *", "6 * *", "99 * * * *", "x", ""])
def test_not_a_schedule(value: str) -> None:
    with pytest.raises(InvalidConfig, match="^Schedule"):
        keys.CRON.check(value)


def test_lxds_words() -> None:
    for kind, value, text in (
        (keys.CPU_LIMIT, "x", "Invalid CPU limit syntax"),
        (keys.INT, "x", 'Invalid value for an integer "x"'),
        (keys.choice("a", "b"), "x", r'Invalid value "x" \(not one of \[a b\]\)'),
        (keys.SIZE, "x", "Invalid value: x"),
    ):
        with pytest.raises(InvalidConfig, match=f"^{text}"):
            kind.check(value)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpu_sets_read_back(cpus: set[int]) -> None:
    assert keys.parse_cpus(format_cpus(cpus)) == sorted(cpus)


@given(st.text())
def test_every_type_refuses_with_a_reason_or_accepts(value: str) -> None:
    for kind in (keys.CPU_LIMIT, keys.MEMORY, keys.CRON, keys.EXPIRY, keys.INT, keys.ADDRESS,
                 keys.NETWORK_V4, keys.MODE, keys.HWADDR, keys.CIDR_V6):  # fmt: skip
        try:
            kind.check(value)
        except InvalidConfig as error:
            assert str(error)


def test_what_to_keep() -> None:
    assert keys.parse_keep("7") == {"last": 7}
    assert keys.parse_keep("daily=7, weekly=4,3") == {"daily": 7, "weekly": 4, "last": 3}
    for text in ("", "x", "0", "-1", "daily", "daily=", "daily=1,daily=2", "1,last=2", "1,", "²"):
        with pytest.raises(InvalidConfig, match="^Invalid value"):
            keys.parse_keep(text)
