"""Questions to neighbours: frames as the wire has them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from lxpy.networks import probe

OWN = "00:16:3e:00:00:01"


def test_arp() -> None:
    wanted = IPv4Address("192.0.2.7")
    frame = probe.arp_request(OWN, wanted)
    assert len(frame) == 60 and frame[:6] == b"\xff" * 6
    assert frame[12:22].hex() == "08060001080006040001"
    assert frame[22:28] == bytes.fromhex("00163e000001") and frame[28:32] == bytes(4)
    assert frame[38:42] == wanted.packed
    answer = frame[:20] + b"\0\2" + frame[22:28] + wanted.packed + bytes(28)
    assert probe.is_arp_answer(answer, wanted)
    assert not probe.is_arp_answer(answer, IPv4Address("192.0.2.8"))
    assert not probe.is_arp_answer(frame, wanted) and not probe.is_arp_answer(b"", wanted)


def test_ndp() -> None:
    wanted = IPv6Address("fd42::7")
    message = probe.solicitation(OWN, wanted)
    assert message[0] == 135 and message[8:24] == wanted.packed
    assert message[24:] == bytes.fromhex("010100163e000001")
    assert probe.is_advertisement(bytes((136,)) + bytes(7) + wanted.packed, wanted)
    assert not probe.is_advertisement(message, wanted)
