"""Renders the templates of dnsmasq and nftables."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, Template


@cache
def _template(name: str) -> Template:
    text = resources.files("lxpy.templates").joinpath("network", name).read_text(encoding="utf-8")
    environment = Environment(
        loader=BaseLoader(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.from_string(text)


def render(name: str, **values: Any) -> str:
    """Return the template `templates/network/NAME` filled in; an unknown name in it is an error.

    Reads a file at its first use: call it in a thread where the event loop runs.
    """
    return _template(name).render(values)
