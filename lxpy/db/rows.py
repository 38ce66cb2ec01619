"""The tables. Names are unique per project; config and devices are JSON columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from lxpy.db.base import Base, Config, Devices


class SettingRow(Base):
    """One server config key."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class CertificateRow(Base):
    """The certificate of a client that is trusted."""

    __tablename__ = "certificates"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    type: Mapped[str]
    restricted: Mapped[bool]
    projects: Mapped[list[str]]
    certificate: Mapped[str] = mapped_column(Text)


class ProjectRow(Base):
    """A scope of names."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config] = mapped_column(default=dict)


class ProfileRow(Base):
    """Config and devices that instances share."""

    __tablename__ = "profiles"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config] = mapped_column(default=dict)
    devices: Mapped[Devices] = mapped_column(default=dict)


class InstanceRow(Base):
    """An instance: what its owner wrote and what lxpy keeps about it (volatile keys)."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    architecture: Mapped[str]
    type: Mapped[str] = mapped_column(default="container")
    ephemeral: Mapped[bool] = mapped_column(default=False)
    stateful: Mapped[bool] = mapped_column(default=False)
    description: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    config: Mapped[Config]
    devices: Mapped[Devices]
    volume: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    profiles: Mapped[list[InstanceProfileRow]] = relationship(
        order_by="InstanceProfileRow.position",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="selectin",
    )


class InstanceProfileRow(Base):
    """A profile of an instance; a higher position wins."""

    __tablename__ = "instance_profiles"

    instance_id: Mapped[int] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    profile_id: Mapped[int] = mapped_column(
        ForeignKey("profiles.id", ondelete="RESTRICT"), index=True
    )
    profile: Mapped[ProfileRow] = relationship(lazy="joined", innerjoin=True)


class ImageRow(Base):
    """An image in the store; its files bear the fingerprint."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("project", "fingerprint"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    fingerprint: Mapped[str]
    filename: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    architecture: Mapped[str]
    type: Mapped[str] = mapped_column(default="container")
    public: Mapped[bool] = mapped_column(default=False)
    auto_update: Mapped[bool] = mapped_column(default=False)
    cached: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    uploaded_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    properties: Mapped[Config] = mapped_column(default=dict)
    profiles: Mapped[list[str]] = mapped_column(default=list)
    update_source: Mapped[dict[str, Any]] = mapped_column(default=dict)
    aliases: Mapped[list[ImageAliasRow]] = relationship(
        back_populates="image",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="selectin",
        order_by="ImageAliasRow.name",
    )


class ImageAliasRow(Base):
    """A name of an image; it may hold slashes."""

    __tablename__ = "image_aliases"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    image: Mapped[ImageRow] = relationship(back_populates="aliases", lazy="joined", innerjoin=True)


class NetworkRow(Base):
    """A managed network, and the addresses of the host that lead into it."""

    __tablename__ = "networks"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    type: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config] = mapped_column(default=dict)
    forwards: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default="[]")


class NetworkAclRow(Base):
    """Rules for the traffic of networks, by a name."""

    __tablename__ = "network_acls"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config] = mapped_column(default=dict)
    ingress: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    egress: Mapped[list[dict[str, Any]]] = mapped_column(default=list)


class PoolRow(Base):
    """A storage pool."""

    __tablename__ = "storage_pools"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    driver: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config] = mapped_column(default=dict)


class VolumeRow(Base):
    """A custom volume; those of instances and images follow from instances and images."""

    __tablename__ = "storage_volumes"
    __table_args__ = (UniqueConstraint("pool_id", "project", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    pool_id: Mapped[int] = mapped_column(ForeignKey("storage_pools.id", ondelete="RESTRICT"))
    project: Mapped[str]
    name: Mapped[str]
    content_type: Mapped[str] = mapped_column(default="filesystem")
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    pool: Mapped[PoolRow] = relationship(lazy="joined", innerjoin=True)


class InstanceSnapshotRow(Base):
    """An instance as it was; `data` is what lxpy keeps about the making of it."""

    __tablename__ = "instance_snapshots"
    __table_args__ = (UniqueConstraint("instance_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    name: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    description: Mapped[str] = mapped_column(Text, default="")
    stateful: Mapped[bool] = mapped_column(default=False)
    ephemeral: Mapped[bool] = mapped_column(default=False)
    config: Mapped[Config]
    devices: Mapped[Devices]
    profiles: Mapped[list[str]]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class VolumeSnapshotRow(Base):
    """A custom volume as it was."""

    __tablename__ = "volume_snapshots"
    __table_args__ = (UniqueConstraint("volume_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    volume_id: Mapped[int] = mapped_column(ForeignKey("storage_volumes.id", ondelete="CASCADE"))
    name: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    description: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[Config]


class BackupRow(Base):
    """A backup kept by the daemon, of an instance or of a custom volume."""

    __tablename__ = "backups"
    __table_args__ = (UniqueConstraint("instance_id", "volume_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    volume_id: Mapped[int | None] = mapped_column(
        ForeignKey("storage_volumes.id", ondelete="CASCADE")
    )
    name: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class IntentRow(Base):
    """Work that changes the host and is under way: undone or finished when the daemon starts."""

    __tablename__ = "intents"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    project: Mapped[str]
    name: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
