"""Tables as `lxc` draws them, dates as it writes them."""

from __future__ import annotations

import time

import pytest

from lxpy.cli import render, texts

HEADER = ("NAME", "STATE", "IPV4")
ROWS = [["demo", "RUNNING", "10.1.2.3 (eth0)\n10.1.2.4 (eth1)"], ["b", "STOPPED", ""]]


def test_table() -> None:
    assert render.table(HEADER, ROWS) == (
        "+------+---------+-----------------+\n"
        "| NAME |  STATE  |      IPV4       |\n"
        "+------+---------+-----------------+\n"
        "| demo | RUNNING | 10.1.2.3 (eth0) |\n"
        "|      |         | 10.1.2.4 (eth1) |\n"
        "+------+---------+-----------------+\n"
        "| b    | STOPPED |                 |\n"
        "+------+---------+-----------------+\n"
    )


def test_empty_table() -> None:
    line = "+------+-------+------+\n"
    assert render.table(HEADER, []) == f"{line}| NAME | STATE | IPV4 |\n{line}"


def test_compact() -> None:
    assert render.compact(HEADER, ROWS) == (
        "  NAME   STATE        IPV4        \n"
        "  demo  RUNNING  10.1.2.3 (eth0)  \n"
        "                 10.1.2.4 (eth1)  \n"
        "  b     STOPPED                   \n"
    )


def test_csv() -> None:
    rows = [["a", 'say "x"', "two\nlines", "1,2", " b", ""]]
    assert render.csv(rows) == 'a,"say ""x""","two\nlines","1,2"," b",\n'


def test_json_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    render.show("json", HEADER, ROWS, [{"name": "ä"}])
    assert capsys.readouterr().out == '[{"name":"ä"}]\n'
    render.show("yaml", HEADER, ROWS, [{"name": "ä"}])
    assert capsys.readouterr().out == "- name: ä\n"


def test_wide_letters() -> None:
    assert render.cell_width("漢字") == 4
    assert render.cell_width("e\u0301") == 1


def test_natural_order() -> None:
    rows = [["c10"], ["c2"], ["b"], ["c2a"], ["2"], ["10"]]
    assert sorted(rows, key=render.natural) == [["2"], ["10"], ["b"], ["c2"], ["c2a"], ["c10"]]
    assert sorted([["05a"], ["5d"]], key=render.natural) == [["5d"], ["05a"]]


def test_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert texts.date("2026-11-24T20:30:23.29335837Z") == "2026/11/24 20:30 UTC"
    assert texts.date("2026-11-24T21:30:23+01:00") == "2026/11/24 20:30 UTC"
    assert texts.long_date("2026-11-04T00:05:00Z") == "Nov 4, 2026 at 12:05am (UTC)"
    for never in ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", ""):
        assert texts.date(never) == texts.long_date(never) == ""
