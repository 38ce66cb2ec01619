"""index.yaml, the first member of a backup: what it is of, with the objects of the API in it.

Source: LXD docs, "Backups"; the layout is that of LXD 5.0. lxpy's own keys are below "lxpy".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from lxpy.errors import Failed

NAME = "backup/index.yaml"
_OWN = "lxpy"
_TYPES = ("container", "virtual-machine", "custom")

#: An object of the API as YAML has it. Any: a foreign daemon wrote it, each field is checked
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Base:
    """The snapshot that an incremental backup is to be put on top of."""

    snapshot: str
    created_at: datetime
    uuid: str


@dataclass(frozen=True, slots=True)
class Index:
    """A backup: `type` is "container" or "custom", `config` has the objects.

    `snapshots` are names, oldest first. `checksums` says that the archive ends with the digest of
    what is in it.
    """

    name: str
    pool: str
    backend: str
    type: str = "container"
    snapshots: Sequence[str] = ()
    optimized: bool = False
    config: Object = field(default_factory=dict)
    checksums: bool = False
    since: Base | None = None

    @property
    def directory(self) -> str:
        """The name below which the archive has the volume's content."""
        return "backup/volume" if self.type == "custom" else "backup/container"

    def snapshot_directory(self, name: str) -> str:
        """Return the name below which the archive has a snapshot's content."""
        return f"backup/{'volume-snapshots' if self.type == 'custom' else 'snapshots'}/{name}"

    def gone(self, snapshot: str) -> str:
        """Return the name of the member that lists what is gone, of an incremental backup."""
        return f"{self.snapshot_directory(snapshot)}.deleted" if snapshot else "backup/deleted"

    def targets(self) -> dict[str, str]:
        """Return the archive's directories, each with the snapshot's name or ""."""
        return {
            self.directory: "",
            **{self.snapshot_directory(each): each for each in self.snapshots},
        }


def dump(index: Index) -> str:
    """Return index.yaml."""
    own: dict[str, Any] = {"checksums": index.checksums}
    if index.since is not None:
        own["since"] = {
            "snapshot": index.since.snapshot,
            "created_at": index.since.created_at.astimezone(UTC).isoformat(),
            "uuid": index.since.uuid,
        }
    data: dict[str, Any] = {"name": index.name, "backend": index.backend, "pool": index.pool}
    if index.snapshots:
        data["snapshots"] = list(index.snapshots)
    data |= {
        "optimized": index.optimized,
        "optimized_header": False,
        "type": index.type,
        "config": dict(index.config),
        _OWN: own,
    }
    return to_yaml(data)


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return plain values as YAML, in their order."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(
        yaml.dump(dict(data), Dumper=dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    )


def from_yaml(text: str, what: str) -> dict[str, Any]:
    """Return what a YAML mapping of the archive holds. Raises Failed."""
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).replace("\n", " ")
        raise Failed(f"Invalid backup: {what} cannot be parsed: {problem}") from error
    if not isinstance(found, dict):
        raise Failed(f"Invalid backup: {what} is no mapping")
    return found


def parse(text: str) -> Index:
    """Parse index.yaml. Raises Failed naming the key at fault."""
    found = from_yaml(text, "index.yaml")
    name, kind = found.get("name"), found.get("type") or "container"
    if not isinstance(name, str) or not name:
        raise Failed("Invalid backup: index.yaml has no name")
    if kind not in _TYPES:
        raise Failed(f'Invalid backup: index.yaml has an unknown type "{kind}"')
    if kind == "virtual-machine":
        raise Failed("The backup is of a virtual machine: lxpy runs containers only")
    snapshots = found.get("snapshots") or []
    if not isinstance(snapshots, list) or not all(isinstance(each, str) for each in snapshots):
        raise Failed("Invalid backup: index.yaml has no valid list of snapshots")
    config, own = found.get("config") or {}, found.get(_OWN) or {}
    if not isinstance(config, dict) or not isinstance(own, dict):
        raise Failed("Invalid backup: index.yaml has no valid config")
    return Index(
        name=name,
        pool=str(found.get("pool") or ""),
        backend=str(found.get("backend") or ""),
        type=kind,
        snapshots=snapshots,
        optimized=found.get("optimized") is True,
        config=config,
        checksums=own.get("checksums") is True,
        since=_base(own.get("since")),
    )


def _base(value: object) -> Base | None:
    if value is None:
        return None
    created_at = moment(value.get("created_at")) if isinstance(value, dict) else None
    if not isinstance(value, dict) or created_at is None:
        raise Failed("Invalid backup: index.yaml does not say what it goes on top of")
    return Base(str(value.get("snapshot") or ""), created_at, str(value.get("uuid") or ""))


def by_name(listed: object) -> dict[str, Object]:
    """Return the objects of a list by their names; what is none is left out."""
    found = listed if isinstance(listed, list) else []
    return {str(each.get("name")): each for each in found if isinstance(each, dict)}


def moment(value: object) -> datetime | None:
    """Return a date of YAML, None for one that means never or is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime) or value.year <= 1970:
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def strings(value: object, where: str) -> dict[str, str]:
    """Return a mapping of strings; what YAML took for a number or a truth is one again.

    Raises Failed.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Failed(f"Invalid backup: {where} is no mapping")
    return {str(key): _string(item) for key, item in value.items()}


def nested(value: object, where: str) -> dict[str, dict[str, str]]:
    """Return a mapping of mappings of strings, such as devices. Raises Failed."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Failed(f"Invalid backup: {where} is no mapping")
    return {str(key): strings(item, f'{where} "{key}"') for key, item in value.items()}


def _string(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
