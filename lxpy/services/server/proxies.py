"""The proxies that downloads go through: `core.proxy_*`, or what the daemon's environment has.

They are put into the environment, which is what the HTTP client goes by, and the programs that
build images.
"""

from __future__ import annotations

import os

from lxpy.services.server.settings import Settings

#: server key -> variable
_VARIABLES = {
    "core.proxy_http": "http_proxy",
    "core.proxy_https": "https_proxy",
    "core.proxy_ignore_hosts": "no_proxy",
}


class Proxies:
    """Keeps the environment as the settings say; an unset key leaves what was there at first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._given = {name: os.environ.get(name) for name in _VARIABLES.values()}
        settings.on_change.append(self._changed)

    def apply(self) -> None:
        """Put the settings into the environment."""
        for key, name in _VARIABLES.items():
            value = self._settings.get(key) or self._given[name]
            if value:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)

    def _changed(self, keys: set[str]) -> None:
        if keys & set(_VARIABLES):
            self.apply()
