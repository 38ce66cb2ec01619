"""Certificates of clients that are trusted.

Source: LXD docs, "REST API", "/1.0/certificates".
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

CLIENT, METRICS = "client", "metrics"
TYPES = (CLIENT, METRICS)


class Certificate(Struct, kw_only=True):
    """A certificate (PEM) whose owner may call; `fingerprint` is the SHA-256 of its DER form.

    A restricted one is good for its `projects` only, one of type metrics for `/1.0/metrics`.
    """

    name: str
    type: str
    restricted: bool
    projects: list[str]
    certificate: str
    fingerprint: str


class CertificatesPost(Struct, kw_only=True):
    """A certificate (DER in base64, or PEM) to trust, a password or token to earn trust with, or
    the wish for a token."""

    name: str = ""
    type: str = CLIENT
    restricted: bool = False
    projects: list[str] | None = None
    certificate: str = ""
    password: str = ""
    trust_token: str = ""
    token: bool = False


class CertificatePut(Struct, kw_only=True):
    """What can be changed; an empty certificate stays as it is."""

    name: str = ""
    type: str = CLIENT
    restricted: bool = False
    projects: list[str] = field(default_factory=list)
    certificate: str = ""


class CertificatePatch(Struct, kw_only=True):
    """As CertificatePut; what is missing stays."""

    name: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    restricted: bool | UnsetType = UNSET
    projects: list[str] | UnsetType = UNSET
    certificate: str | UnsetType = UNSET


class Token(Struct, kw_only=True):
    """What somebody who is to be trusted is given, as base64 of JSON."""

    client_name: str
    fingerprint: str
    addresses: list[str]
    secret: str
    expires_at: Any = None
