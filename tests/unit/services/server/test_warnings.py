"""Warnings come and go with their causes."""

from __future__ import annotations

import pytest

from lxpy.errors import BadRequest, NotFound
from lxpy.services.server.warnings import Trouble, Warnings


def test_as_long_as_there_is_a_cause() -> None:
    troubles = [Trouble("A", "bad"), Trouble("B", "worse", "low", "/1.0/instances/c1", "p")]
    warnings = Warnings()
    warnings.sources.append(lambda: troubles)
    one, two = warnings.warnings()
    assert (one.type, one.severity, one.status, one.count) == ("A", "high", "new", 1)
    assert (two.entity_url, two.project, two.severity) == ("/1.0/instances/c1", "p", "low")
    warnings.mark(one.uuid, "acknowledged")
    assert [each.status for each in warnings.warnings()] == ["acknowledged", "new"]
    troubles[0] = Trouble("A", "bad in another way")
    again = warnings.warnings()[0]
    assert (again.uuid, again.count, again.status) == (one.uuid, 2, "new")
    troubles.clear()
    assert warnings.warnings() == []


def test_dismissed_until_there_is_another_cause() -> None:
    troubles = [Trouble("A", "bad")]
    warnings = Warnings()
    warnings.sources.append(lambda: troubles)
    warnings.dismiss(warnings.warnings()[0].uuid)
    assert warnings.warnings() == []
    troubles[0] = Trouble("A", "worse")
    assert [each.last_message for each in warnings.warnings()] == ["worse"]
    warnings.dismiss(warnings.warnings()[0].uuid)
    troubles.clear()
    assert warnings.warnings() == []
    troubles.append(Trouble("A", "worse"))
    assert len(warnings.warnings()) == 1


def test_what_is_not_known() -> None:
    warnings = Warnings()
    with pytest.raises(NotFound):
        warnings.mark("none", "new")
    with pytest.raises(NotFound):
        warnings.dismiss("none")
    with pytest.raises(BadRequest, match="acknowledged"):
        warnings.mark("none", "resolved")
