"""Config keys of the server.

Source: LXD docs, "Server configuration".
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from lxpy.errors import InvalidConfig
from lxpy.images.pack import OPTION
from lxpy.keys import BOOL, EXPIRY, STRING, UINT, ConfigKey, Keys, Texts, Type, listing, table

_TEXTS = Texts(
    unknown="cannot set '{key}' to '{value}': unknown key",
    invalid="cannot set '{key}' to '{value}': {reason}",
)
PASSWORD = "core.trust_password"
#: what clients see of a key that is not for their eyes
HIDDEN = "true"


def _url(value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https", "file") or not (parts.netloc or parts.path):
        raise InvalidConfig("write a URL that begins with http://, https:// or file://")


def _compression(value: str) -> None:
    words = value.split()
    known = ("bzip2", "gzip", "lzma", "none", "squashfs", "xz", "zstd")
    if not words or words[0] not in known or not all(re.fullmatch(OPTION, w) for w in words[1:]):
        raise InvalidConfig(
            f'Invalid compression algorithm "{value}": use one of {", ".join(known)}, perhaps with '
            'a level: "zstd -9"'
        )


def _later(reason: str) -> Type:
    def check(value: str) -> None:
        raise InvalidConfig(f"{reason}: leave it unset")

    return Type("string", check)


_URL = Type("string", _url)
_COMPRESSION = Type("string", _compression)
_NO_CLUSTER = _later("lxpy has no clusters")
_NO_SERVICE = _later("this version of lxpy does not offer that service")
_NO_PROXIED = _later("lxpyd takes the sender's address from the connection alone")

SERVER_KEYS: Keys = table(
    (
        ConfigKey("backups.compression_algorithm", _COMPRESSION, "zstd",
                  description="Compression of backups"),
        ConfigKey("core.https_allowed_credentials", BOOL,
                  description="Access-Control-Allow-Credentials of replies over HTTPS"),
        ConfigKey("core.https_allowed_headers", STRING,
                  description="Access-Control-Allow-Headers of replies over HTTPS"),
        ConfigKey("core.https_allowed_methods", STRING,
                  description="Access-Control-Allow-Methods of replies over HTTPS"),
        ConfigKey("core.https_allowed_origin", STRING,
                  description="Access-Control-Allow-Origin of replies over HTTPS"),
        ConfigKey("core.https_address", STRING, live=True,
                  description='Where it listens for clients of the network: ":8443"'),
        ConfigKey("core.metrics_address", STRING, live=True,
                  description='Where it listens for those who want metrics alone: ":9100"'),
        ConfigKey("core.metrics_authentication", BOOL, "true", live=True,
                  description="Whether metrics are for trusted clients only"),
        ConfigKey("core.proxy_http", _URL, live=True,
                  description="HTTP proxy of downloads; unset: http_proxy of the environment"),
        ConfigKey("core.proxy_https", _URL, live=True,
                  description="HTTPS proxy of downloads; unset: https_proxy of the environment"),
        ConfigKey("core.proxy_ignore_hosts", STRING, live=True,
                  description="Hosts that are asked without a proxy, comma-separated"),
        ConfigKey("core.remote_token_expiry", EXPIRY, live=True,
                  description='How long a token for a new client is good: "3H"; unset: until used'),
        ConfigKey("core.shutdown_timeout", UINT, "5", live=True,
                  description="Minutes to wait for work and instances when the daemon goes down"),
        ConfigKey("core.trust_ca_certificates", BOOL, "false", live=True,
                  description="Whether whoever server.ca has issued a certificate to is trusted"),
        ConfigKey(PASSWORD, STRING, live=True,
                  description="Password by which clients are added to the trust store"),
        ConfigKey("images.auto_update_cached", BOOL, "true", live=True,
                  description="Whether images that were fetched for an instance are kept fresh"),
        ConfigKey("images.auto_update_interval", UINT, "6", live=True,
                  description="Hours between two looks for newer images; 0 is never"),
        ConfigKey("images.compression_algorithm", _COMPRESSION, "zstd", live=True,
                  description="Compression of images made here"),
        ConfigKey("images.default_architecture", STRING, live=True,
                  description="Architecture of images when there is a choice"),
        ConfigKey("images.mirror.*", _URL, live=True,
                  description='Package mirror that images of a distribution ("debian") are built '
                  "from"),
        ConfigKey("images.remote_cache_expiry", UINT, "10", live=True,
                  description="Days until a fetched image that nobody uses is removed"),
        ConfigKey("images.servers", listing(_URL), live=True,
                  description='Simplestreams servers that "images:" asks, in this order'),
        ConfigKey("user.*", STRING, live=True, description="Free"),
        # Known, and refused with the reason.
        ConfigKey("core.https_trusted_proxy", _NO_PROXIED),
        *(ConfigKey(f"core.{name}", _NO_SERVICE) for name in (
            "bgp_address", "bgp_asn", "bgp_routerid", "debug_address", "dns_address")),
        ConfigKey("storage.backups_volume", STRING, live=True,
                  description='Custom volume in which backups lie: "POOL/VOLUME"'),
        ConfigKey("storage.images_volume", STRING, live=True,
                  description='Custom volume in which images lie: "POOL/VOLUME"'),
        ConfigKey("cluster.*", _NO_CLUSTER),
    ),
    _TEXTS,
)  # fmt: skip


def checked(values: Mapping[str, object], old: Mapping[str, str]) -> dict[str, str]:
    """Return a config as it is stored: what is unset left out, the password hashed.

    Raises InvalidConfig in LXD's words.
    """
    found: dict[str, str] = {}
    for key, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text and key == PASSWORD:
            text = old.get(PASSWORD, "") if text == HIDDEN else _hashed(text)
        SERVER_KEYS.check(key, text)
        if text:
            found[key] = text
    return found


def shown(config: Mapping[str, str]) -> dict[str, str]:
    """Return a config as clients may see it."""
    return {key: HIDDEN if key == PASSWORD else value for key, value in config.items()}


def _hashed(password: str) -> str:
    """Return salt and scrypt hash of a password, in hexadecimal. Takes some 50 ms."""
    salt = secrets.token_bytes(32)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=64)
    return f"{salt.hex()}:{digest.hex()}"


def is_password(password: str, stored: str) -> bool:
    """Tell whether that is the password whose hash is stored. Takes some 50 ms."""
    salt, _, digest = stored.partition(":")
    try:
        again = hashlib.scrypt(
            password.encode(), salt=bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=64
        )
    except ValueError:
        return False
    return secrets.compare_digest(again.hex(), digest)
