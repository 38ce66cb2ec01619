"""YAML as LXD's client writes it, and as users write it to us."""

from __future__ import annotations

from typing import Any

import yaml

from lxpy.errors import BadRequest

#: Maps whose values are strings whatever they look like: `security.nesting: true`, `size: 10`.
_STRING_MAPS = ("config", "devices", "properties")


#: Maps whose keys are shown in order; other keys stay in the server's.
_SORTED_MAPS = (*_STRING_MAPS, "expanded_config", "expanded_devices", "network")

#: Lists that a server may leave out as null.
_LISTS = ("used_by", "locations", "profiles", "snapshots", "backups", "addresses")

_RESOLVERS = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


#: Letters that YAML takes for line ends or leaves out unless they are escaped.
_ESCAPED = set("\r\x85\u2028\u2029\ufeff")


class _Dumper(yaml.SafeDumper):
    """Quotes with double quotes, as Go does, and keeps several lines readable."""

    yaml_implicit_resolvers = _RESOLVERS

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None
    if set(text) & _ESCAPED:
        style = '"'
    elif "\n" in text:
        style = "|"
    elif not text or (_misread(text) and not set(text) & set('"\\')):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _misread(text: str) -> bool:
    """Whether a plain scalar would read back as a number, a truth value or nothing."""
    rules = [*_RESOLVERS.get(text[0], []), *_RESOLVERS.get(None, [])]
    return any(rule.match(text) for _, rule in rules)


_Dumper.add_representer(str, _text)


class _Loader(yaml.SafeLoader):
    """Leaves dates as they are written."""

    yaml_implicit_resolvers = _RESOLVERS


def dump(data: object) -> str:
    """Return YAML: objects' keys in the server's order, those of config and the like sorted."""
    return yaml.dump(tidy(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)


def tidy(data: object, *, ordered: bool = False) -> object:
    """Return data with the keys of config, devices and the like sorted."""
    if isinstance(data, dict):
        data = {key: [] if data[key] is None and key in _LISTS else data[key] for key in data}
        keys = sorted(data) if ordered else list(data)
        return {key: tidy(data[key], ordered=ordered or key in _SORTED_MAPS) for key in keys}
    if isinstance(data, list):
        return [tidy(each, ordered=False) for each in data]
    return data


def load(text: str) -> dict[str, Any]:
    """Return the object that YAML describes, {} for nothing.

    Config, properties and devices' options are strings. Raises BadRequest.
    """
    try:
        data = yaml.load(text, Loader=_Loader)
        strings = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise BadRequest(f"Invalid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not isinstance(strings, dict):
        raise BadRequest("Invalid YAML: expected keys with values at the top")
    for key in _STRING_MAPS:
        if key in data:
            data[key] = strings[key] or {}
            if not isinstance(data[key], dict):
                raise BadRequest(f'Invalid YAML: "{key}" must hold keys with values')
    return data
