from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from lxpy import selfsigned


def test_a_server(tmp_path: Path) -> None:
    address = x509.IPAddress(ipaddress.ip_address("::1"))
    key, text = selfsigned.make("root", selfsigned.SERVER, [address])
    found = x509.load_pem_x509_certificate(text)
    found.verify_directly_issued_by(found)
    (owner,) = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert str(owner.value).startswith("root@")
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [address]
    now = datetime.now(UTC)
    assert found.not_valid_before_utc < now < now + timedelta(days=3600) < found.not_valid_after_utc
    both = tmp_path / "both.pem"
    both.write_bytes(key + text)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(both)


def test_a_client_has_no_other_names() -> None:
    found = x509.load_pem_x509_certificate(selfsigned.make("u", selfsigned.CLIENT)[1])
    (usage,) = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert usage == selfsigned.CLIENT
    assert not [each for each in found.extensions if each.oid == x509.SubjectAlternativeName.oid]
