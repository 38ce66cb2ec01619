"""The database as records on disk see it: read past the ORM, in one go, off the event loop.

A record is rewritten when the digest of what it is made of has changed. SQLite puts the texts
together, so that a thousand instances are looked through in some milliseconds.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lxpy.db.integrity import connect

#: tables whose rows are recorded together, in one file each
TABLES = (
    "images", "network_acls", "networks", "profiles", "projects", "settings", "storage_pools"
)  # fmt: skip
INSTANCES = "instances"
VOLUMES = "storage_volumes"

_JSON = ("config", "devices", "profiles", "data", "volume", "properties", "update_source",
         "forwards", "ingress", "egress")  # fmt: skip
_BOOLEANS = ("ephemeral", "stateful", "public", "auto_update", "cached")

Row = dict[str, Any]


class Key(NamedTuple):
    """What a record is of: `place` is the project of an instance, the pool of a volume."""

    kind: str
    place: str = ""
    project: str = ""
    name: str = ""


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Have one consistent view of the database for the length of a block."""
    with closing(connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection


# Digests


def digests(connection: sqlite3.Connection) -> dict[Key, str]:
    """Return the digest of everything that has a record."""
    found = {Key(each): _whole(connection, each) for each in TABLES}
    for project, name, text in connection.execute(_INSTANCE_DIGESTS):
        found[Key(INSTANCES, project=project, name=name)] = _digest(text)
    for pool, project, name, text in connection.execute(_VOLUME_DIGESTS):
        found[Key(VOLUMES, pool, project, name)] = _digest(text)
    return found


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _whole(connection: sqlite3.Connection, table: str) -> str:
    found = hashlib.blake2b(digest_size=16)
    for row in connection.execute(f"SELECT * FROM {table}"):
        found.update(repr(tuple(row)).encode())
    if table == "images":
        for row in connection.execute("SELECT * FROM image_aliases"):
            found.update(repr(tuple(row)).encode())
    return found.hexdigest()


_SEPARATED = "|| char(31) ||"
_INSTANCE_DIGESTS = f"""
SELECT i.project, i.name, {
    _SEPARATED.join(
        (
            "i.name",
            "i.architecture",
            "i.ephemeral",
            "i.stateful",
            "i.description",
            "i.created_at",
            "ifnull(i.last_used_at, '')",
            "i.volume",
            "i.config",
            "i.devices",
        )
    )
} || ifnull((
    SELECT group_concat(p.name || char(30) || p.description || p.config || p.devices, char(31))
    FROM instance_profiles ip JOIN profiles p ON p.id = ip.profile_id WHERE ip.instance_id = i.id
), '') || ifnull((
    SELECT group_concat(s.id || char(30) || s.name || char(30) || ifnull(s.expires_at, '')
        || char(30) || s.description || char(30) || s.data, char(31))
    FROM instance_snapshots s WHERE s.instance_id = i.id
), '')
FROM instances i
"""
_VOLUME_DIGESTS = f"""
SELECT p.name, v.project, v.name, {
    _SEPARATED.join(
        (
            "v.content_type",
            "v.description",
            "v.config",
            "v.created_at",
        )
    )
} || ifnull((
    SELECT group_concat(s.id || char(30) || s.name || char(30) || ifnull(s.expires_at, '')
        || char(30) || s.description || char(30) || s.config, char(31))
    FROM volume_snapshots s WHERE s.volume_id = v.id
), '')
FROM storage_volumes v JOIN storage_pools p ON p.id = v.pool_id
"""


# Rows


def rows(connection: sqlite3.Connection, table: str) -> list[Row]:
    """Return all rows of one of `TABLES`; of images, with their aliases."""
    found = [_row(each) for each in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]
    if table == "images":
        for image in found:
            query = "SELECT name, description FROM image_aliases WHERE image_id = ? ORDER BY name"
            image["aliases"] = [_row(each) for each in connection.execute(query, (image["id"],))]
    return found


def instance(connection: sqlite3.Connection, key: Key) -> dict[str, Any] | None:
    """Return an instance with its snapshots and the whole of its profiles, None if it is gone."""
    query = "SELECT * FROM instances WHERE project = ? AND name = ?"
    row = connection.execute(query, (key.project, key.name)).fetchone()
    if row is None:
        return None
    of_it = (row["id"],)
    profiles = connection.execute(
        "SELECT p.* FROM instance_profiles ip JOIN profiles p ON p.id = ip.profile_id "
        "WHERE ip.instance_id = ? ORDER BY ip.position", of_it,
    )  # fmt: skip
    found = [_row(each) for each in profiles]
    snapshots = connection.execute(
        "SELECT * FROM instance_snapshots WHERE instance_id = ? ORDER BY created_at, id", of_it
    )
    container = _row(row) | {"profiles": [each["name"] for each in found]}
    return {
        "container": container,
        "snapshots": [_row(each) for each in snapshots],
        "profiles": found,
    }


def volume(connection: sqlite3.Connection, key: Key) -> dict[str, Any] | None:
    """Return a custom volume with its snapshots, None if it is gone."""
    query = (
        "SELECT v.* FROM storage_volumes v JOIN storage_pools p ON p.id = v.pool_id "
        "WHERE p.name = ? AND v.project = ? AND v.name = ?"
    )
    row = connection.execute(query, (key.place, key.project, key.name)).fetchone()
    if row is None:
        return None
    snapshots = connection.execute(
        "SELECT * FROM volume_snapshots WHERE volume_id = ? ORDER BY created_at, id", (row["id"],)
    )
    return {
        "volume": _row(row) | {"pool": key.place, "type": "custom"},
        "volume_snapshots": [_row(each) for each in snapshots],
    }


def _row(row: Mapping[str, Any] | sqlite3.Row) -> Row:
    """Return a row's values as YAML has them."""
    return {key: _value(key, row[key]) for key in row.keys()}  # noqa: SIM118  (Row is no mapping)


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str) and key in _JSON:
        return msgspec.json.decode(value)
    if isinstance(value, str) and key.endswith("_at"):
        return f"{value.replace(' ', 'T')}Z"
    return bool(value) if key in _BOOLEANS else value
