"""The certificate by which servers know the user: made once, signed by itself."""

from __future__ import annotations

import datetime
import getpass
import os
import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lxpy.client import configfile

_DAYS = 3650


def ensure() -> bool:
    """Make client.crt and client.key in the user's directory if they are missing; whether so."""
    directory = configfile.directory()
    certificate = os.path.join(directory, "client.crt")
    if os.path.exists(certificate):
        return False
    os.makedirs(directory, mode=0o750, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    configfile.write(os.path.join(directory, "client.key"), text, 0o600)
    configfile.write(certificate, _signed(key).public_bytes(Encoding.PEM))
    return True


def _signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    owner = f"{getpass.getuser()}@{socket.gethostname()}"[:64]
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "lxpy"),
            x509.NameAttribute(NameOID.COMMON_NAME, owner),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA384())
    )
