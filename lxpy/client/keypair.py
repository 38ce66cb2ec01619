"""The certificate by which servers know the user: made once, signed by itself."""

from __future__ import annotations

import getpass
import os

from lxpy import selfsigned
from lxpy.client import configfile


def ensure() -> bool:
    """Make client.crt and client.key in the user's directory if they are missing; whether so."""
    directory = configfile.directory()
    certificate = os.path.join(directory, "client.crt")
    if os.path.exists(certificate):
        return False
    os.makedirs(directory, mode=0o750, exist_ok=True)
    key, text = selfsigned.make(getpass.getuser(), selfsigned.CLIENT)
    configfile.write(os.path.join(directory, "client.key"), key, 0o600)
    configfile.write(certificate, text)
    return True
