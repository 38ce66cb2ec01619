"""Settings of forwarding, on a tree of files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.networks import sysctls


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4/ip_forward").write_text("0\n")
    for name, accept_ra in (("all", "1"), ("default", "1"), ("eth0", "1"), ("br0", "0")):
        conf = tmp_path / "ipv6/conf" / name
        conf.mkdir(parents=True)
        for setting, value in (
            ("accept_ra", accept_ra), ("forwarding", "0"), ("disable_ipv6", "0"),
            ("autoconf", "1"), ("accept_dad", "1"),
        ):  # fmt: skip
            (conf / setting).write_text(f"{value}\n")
    return tmp_path


def test_a_host_that_forwards_keeps_listening_to_its_router(proc: Path) -> None:
    sysctls.forward(ipv4=True, ipv6=True, proc=proc)
    assert (proc / "ipv4/ip_forward").read_text() == "1"
    assert (proc / "ipv6/conf/all/forwarding").read_text() == "1"
    assert (proc / "ipv6/conf/eth0/accept_ra").read_text() == "2"
    assert (proc / "ipv6/conf/br0/accept_ra").read_text().strip() == "0"


def test_only_what_is_asked_for(proc: Path) -> None:
    sysctls.forward(ipv4=False, ipv6=False, proc=proc)
    assert (proc / "ipv4/ip_forward").read_text() == "0\n"
    assert (proc / "ipv6/conf/eth0/accept_ra").read_text() == "1\n"


@pytest.mark.parametrize("ipv6", [True, False])
def test_bridge(proc: Path, ipv6: bool) -> None:
    sysctls.prepare_bridge("br0", ipv6=ipv6, proc=proc)
    conf = proc / "ipv6/conf/br0"
    assert (conf / "disable_ipv6").read_text().strip() == ("0" if ipv6 else "1")
    assert (conf / "accept_dad").read_text() == "0"


def test_a_host_without_ipv6(tmp_path: Path) -> None:
    assert not sysctls.has_ipv6(tmp_path)
    sysctls.prepare_bridge("br0", ipv6=False, proc=tmp_path)


def test_has_ipv6(proc: Path) -> None:
    assert sysctls.has_ipv6(proc)
    (proc / "ipv6/conf/all/disable_ipv6").write_text("1\n")
    assert not sysctls.has_ipv6(proc)


def test_read_takes_names_with_dots(tmp_path: Path) -> None:
    place = tmp_path / "ipv4/conf/eno1.7"
    place.mkdir(parents=True)
    (place / "forwarding").write_text("1\n")
    assert sysctls.read("net.ipv4.conf.eno1.7.forwarding", "eno1.7", tmp_path) == "1"
    assert sysctls.read("net.ipv6.conf.all.forwarding", "eno1.7", tmp_path) == ""
