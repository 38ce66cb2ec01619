"""Config of pools and volumes."""

from __future__ import annotations

import pytest

from lxpy.errors import Failed, InvalidConfig
from lxpy.storage import StoragePools
from lxpy.storage.keys import validate_pool


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"source": "/srv/pool", "user.color": "blue"},
        {"rsync.bwlimit": "10MB", "rsync.compression": "false"},
        {"volume.snapshots.expiry": "3d", "volume.user.x": ""},
    ],
)
def test_pools_take(config: dict[str, str]) -> None:
    validate_pool("dir", config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bogus": "1"}, 'Invalid option "bogus"'),
        ({"size": "10GiB"}, 'Invalid option "size"'),
        ({"source": "relative"}, "no absolute path"),
        ({"source": "/srv/../etc"}, 'as "/etc"'),
        ({"rsync.compression": "perhaps"}, "boolean"),
        ({"volume.bogus": "1"}, r'volume\.\*.*Invalid option "bogus"'),
        ({"volume.size": "much"}, r'volume\.\*.*"size"'),
        ({"dir.quota": "some"}, "dir.quota"),
    ],
)
def test_pools_refuse(config: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        validate_pool("dir", config)


def test_an_unknown_driver_is_refused(storage: StoragePools) -> None:
    with pytest.raises(Failed, match=r'Unknown driver "ceph": this build has dir'):
        storage.fill("p", "ceph", {})


def test_a_source_is_filled_in(storage: StoragePools) -> None:
    assert storage.fill("p", "dir", {})["source"].endswith("/pools/p")
    given = storage.fill("p", "dir", {"source": "/srv/x"})
    assert given == {"source": "/srv/x", "volatile.initial_source": "/srv/x"}
