"""What an instance keeps of its image's metadata.yaml: `/1.0/instances/NAME/metadata`.

Source: LXD docs, "REST API", "Instances"; "Image format".
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType


class ImageTemplate(Struct, kw_only=True):
    """A file of the guest that is rendered from the file `template` in templates/."""

    when: list[str] | None = None
    create_only: bool = False
    template: str = ""
    properties: dict[str, str] | None = None


class ImageMetadata(Struct, kw_only=True):
    """The content of metadata.yaml; times are seconds since the epoch."""

    architecture: str = ""
    creation_date: int = 0
    expiry_date: int = 0
    properties: dict[str, str] | None = None
    templates: dict[str, ImageTemplate] | None = None


class ImageMetadataPatch(Struct, kw_only=True):
    """A change: what is missing stays, properties and templates one by one."""

    architecture: str | UnsetType = UNSET
    creation_date: int | UnsetType = UNSET
    expiry_date: int | UnsetType = UNSET
    properties: dict[str, str] | UnsetType | None = UNSET
    templates: dict[str, ImageTemplate] | UnsetType | None = UNSET
