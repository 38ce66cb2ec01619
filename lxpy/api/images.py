"""Images and their aliases: requests and objects of `/1.0/images`.

Source: LXD docs, "REST API", "Images".
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import UNSET, Struct, UnsetType, field

#: how a time that was never is written
NEVER = datetime(1, 1, 1, tzinfo=UTC)
#: how LXD writes the end of an image that has none
ENDLESS = datetime(1970, 1, 1, tzinfo=UTC)


class ImageAlias(Struct, kw_only=True):
    """A name that an image shows as its own."""

    name: str
    description: str = ""


class UpdateSource(Struct, kw_only=True):
    """Where an image came from, and may come from again."""

    alias: str = ""
    certificate: str = ""
    protocol: str = ""
    server: str = ""
    image_type: str = "container"


class Image(Struct, kw_only=True):
    """An image of the store; `size` is in bytes."""

    fingerprint: str
    filename: str
    size: int
    architecture: str
    type: str
    public: bool
    auto_update: bool
    cached: bool
    created_at: datetime
    expires_at: datetime
    uploaded_at: datetime
    last_used_at: datetime
    properties: dict[str, str]
    profiles: list[str]
    aliases: list[ImageAlias]
    update_source: UpdateSource | UnsetType = UNSET


class ProjectImage(Image, kw_only=True):
    """An image in a list of all projects' images."""

    project: str


class ImagePut(Struct, kw_only=True):
    """The writable part of an image; what is missing is emptied."""

    auto_update: bool = False
    public: bool = False
    properties: dict[str, str] | None = None
    expires_at: datetime | None = None
    profiles: list[str] | None = None


class ImagePatch(Struct, kw_only=True):
    """A change: what is missing stays, a property set to "" is removed."""

    auto_update: bool | UnsetType = UNSET
    public: bool | UnsetType = UNSET
    properties: dict[str, str] | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    profiles: list[str] | UnsetType | None = UNSET


class ImageSource(Struct, kw_only=True):
    """What an image is made from: an image elsewhere, a URL, a recipe, an instance."""

    type: str = ""
    mode: str = ""
    name: str = ""
    alias: str = ""
    fingerprint: str = ""
    server: str = ""
    protocol: str = ""
    secret: str = ""
    certificate: str = ""
    image_type: str = ""
    project: str = ""
    url: str = ""
    properties: dict[str, str] | None = None


class ImagesPost(ImagePut, kw_only=True):
    """A new image that is not uploaded."""

    source: ImageSource = field(default_factory=ImageSource)
    aliases: list[ImageAlias] | None = None
    filename: str = ""
    compression_algorithm: str = ""


class ImageExportPost(Struct, kw_only=True):
    """Where an image is to be sent: a server (URL, PEM), and the secret with which it awaits it."""

    target: str = ""
    secret: str = ""
    certificate: str = ""
    aliases: list[ImageAlias] | None = None
    project: str = ""
    profiles: list[str] | None = None


class AliasEntry(Struct, kw_only=True):
    """An alias as a resource of its own; `target` is a fingerprint."""

    name: str
    description: str
    target: str
    type: str


class AliasesPost(Struct, kw_only=True):
    """A new alias; `target` may be the beginning of a fingerprint."""

    name: str = ""
    description: str = ""
    target: str = ""
    type: str = ""


class AliasPut(Struct, kw_only=True):
    """The writable part of an alias."""

    description: str = ""
    target: str = ""


class AliasPatch(Struct, kw_only=True):
    """A change of an alias: what is missing stays."""

    description: str | UnsetType = UNSET
    target: str | UnsetType = UNSET


class AliasPost(Struct, kw_only=True):
    """A new name for an alias."""

    name: str = ""


class Recipe(Struct, kw_only=True):
    """A distribution that this host can build, and the names of its releases."""

    name: str
    aliases: list[str]
    description: str
