"""proxy devices: what is taken apart, refused, and planned."""

from __future__ import annotations

import pytest

from lxpy.errors import LxpyError
from lxpy.instances import devices
from lxpy.instances.devices import plans, proxy
from lxpy.runtime.spec import Endpoint


def _given(listen: str, connect: str, **options: str) -> dict[str, str]:
    return {"type": "proxy", "listen": listen, "connect": connect, **options}


@pytest.mark.parametrize(
    "text,kind,host,ports",
    [
        ("tcp:0.0.0.0:80", "tcp", "0.0.0.0", (80,)),
        ("udp:[::1]:53", "udp", "::1", (53,)),
        ("tcp:127.0.0.1:80-82,90", "tcp", "127.0.0.1", (80, 81, 82, 90)),
        ("unix:/run/a b.sock", "unix", "/run/a b.sock", ()),
        ("unix:@name", "unix", "@name", ()),
    ],
)
def test_addresses(text: str, kind: str, host: str, ports: tuple[int, ...]) -> None:
    found = proxy.parse(text)
    assert (found.kind, found.host, found.ports) == (kind, host, ports)


@pytest.mark.parametrize(
    "text",
    ["", "tcp", "tcp:80", "tcp:host:80", "tcp:::1:80", "tcp:[127.0.0.1]:80", "tcp:127.0.0.1:0",
     "tcp:127.0.0.1:65536", "tcp:127.0.0.1:9-8", "tcp:127.0.0.1:", "tcp:127.0.0.1:1-", "sctp:a:1",
     "unix:relative", "unix:/", "unix:@", "unix:/" + "x" * 107, "tcp:127.0.0.1:1-65535"],
)  # fmt: skip
def test_bad_addresses(text: str) -> None:
    with pytest.raises(LxpyError):
        proxy.parse(text)


@pytest.mark.parametrize(
    "given,text",
    [
        (_given("tcp:0.0.0.0:80", "tcp:127.0.0.1:1-2"), "Cannot map a single port to multiple"),
        (_given("tcp:0.0.0.0:1-3", "tcp:127.0.0.1:1-2"), "Mismatch between listen port"),
        (_given("tcp:0.0.0.0:80", "tcp:127.0.0.1:80", mode="0600"), "Only proxy devices for non-"),
        (_given("unix:@a", "tcp:127.0.0.1:80", uid="1"), "Only proxy devices for non-abstract"),
        (_given("tcp:0.0.0.0:80", "unix:/a", proxy_protocol="true"), "The PROXY header can only"),
        (_given("tcp:0.0.0.0:80", "tcp:127.0.0.1:80", bind="x"), "Invalid binding side given"),
        (_given("tcp:0.0.0.0:80", "tcp:10.0.0.1:80", nat="true"), "Cannot listen on wildcard"),
        (_given("tcp:10.0.0.9:80", "udp:10.0.0.1:80", nat="true"), "Proxying tcp <-> udp is not"),
        (_given("tcp:10.0.0.9:80", "tcp:[fd00::1]:80", nat="true"), "Cannot mix IP versions"),
        (_given("tcp:10.0.0.9:80", "tcp:10.0.0.1:80", nat="true", bind="guest"), "Only host-bound"),
        ({"type": "proxy", "listen": "unix:@a"}, '"connect": Required value'),
    ],
)
def test_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(LxpyError, match="(?s)" + text.replace("(", "\\(")):
        devices.validate({"px": given})


def test_plan() -> None:
    (planned,) = plans.forwarded(
        {"a": _given("tcp:0.0.0.0:80-81", "unix:/x", bind="container"),
         "n": _given("tcp:10.0.0.9:80", "tcp:10.0.0.1:80", nat="true")}
    )  # fmt: skip
    assert planned.side == "instance"
    assert [each.listen.port for each in planned.forwardings] == [80, 81]
    assert {each.connect for each in planned.forwardings} == {Endpoint("unix", "/x")}


def test_translated() -> None:
    nics = {"eth0": {"type": "nic", "ipv4.address": "10.0.0.2"}}
    given = _given("tcp:10.0.0.9:80-81", "tcp:0.0.0.0:8080", nat="true")
    (found,) = plans.translated({**nics, "n": given})
    assert found.target == "10.0.0.2" and found.ports == ((80, 8080), (81, 8080))
    with pytest.raises(LxpyError, match="static IPv4 addresses"):
        plans.translated({"n": given})
