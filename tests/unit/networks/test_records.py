"""Records of nics: written whole, read again, gone."""

from __future__ import annotations

from pathlib import Path

from lxpy.networks.records import Record, Records


def test_records(tmp_path: Path) -> None:
    records = Records(tmp_path / "nics")
    assert not list(records.all())
    one = Record("p1_c1", "eth/1", "physical", "eth0", link="eno1", routes=[("192.0.2.1", 254)])
    records.write(one)
    one.index = 7
    records.write(one)
    (found,) = records.all()
    assert (found.instance, found.device, found.index) == ("p1_c1", "eth/1", 7)
    assert [tuple(each) for each in found.routes] == one.routes
    assert records.pinned(one) is None
    (tmp_path / "nics/broken:eth0.json").write_text("{")
    assert len(list(records.all())) == 1
    path = tmp_path / "nics/p1_c1:eth%2F1.json"
    path.write_text(path.read_text().replace(one.boot, "another"))
    assert not list(records.all()) and not path.exists(), "the host was started anew"
    records.write(one)
    records.remove(one)
    records.remove(one)
    assert not list(records.all())
