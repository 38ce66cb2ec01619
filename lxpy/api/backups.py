"""Backups kept by the server, and what may be said of an export.

Source: LXD docs, "REST API", "Instances", "backups". `target` is as in Incus.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class BackupTarget(Struct, kw_only=True):
    """Where a backup is sent to instead of being kept: a bucket of S3."""

    protocol: str = ""
    url: str = ""
    bucket_name: str = ""
    path: str = ""
    access_key: str = ""
    secret_key: str = ""


class BackupsPost(Struct, kw_only=True):
    """A new backup; `volume_only` is the word for custom volumes.

    lxpy's own: `since` names the snapshot that it is to hold the changes from.
    """

    name: str = ""
    expires_at: datetime | None = None
    instance_only: bool = False
    container_only: bool = False
    volume_only: bool = False
    optimized_storage: bool = False
    compression_algorithm: str = ""
    target: BackupTarget | None = None
    since: str = ""


class BackupPost(Struct, kw_only=True):
    """A new name."""

    name: str = ""


class Backup(Struct, kw_only=True):
    """A backup; `size` is that of its file in bytes."""

    name: str
    created_at: datetime
    expires_at: datetime
    instance_only: bool
    container_only: bool
    optimized_storage: bool
    size: int
