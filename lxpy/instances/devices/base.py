"""What the modules of device types share: how a type is declared, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lxpy.errors import InvalidConfig, LxpyError, NotSupported
from lxpy.keys import ConfigKey, Keys, Texts, Type, table

Options = Mapping[str, str]

TEXTS = Texts(
    unknown='Invalid device option "{key}"',
    invalid='Invalid value for device option "{key}": {reason}',
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A device type: its options, those that must be given, and the rules between them.

    `later` are options that are known but that this version does not act on: they are refused,
    since an instance would silently lack what it was promised.
    """

    name: str
    keys: Keys
    required: tuple[str, ...] = ()
    check: Callable[[Options], None] | None = None
    later: tuple[str, ...] = ()

    def validate(self, options: Options) -> None:
        """Raise InvalidConfig or NotSupported when the options are not right."""
        for key, value in options.items():
            if key != "type" and not key.startswith("user."):
                self._check(key, value)
        for key in self.required:
            if not options.get(key):
                raise InvalidConfig(f'Invalid value for device option "{key}": Required value')
        if self.check is not None:
            self.check(options)

    def _check(self, key: str, value: str) -> None:
        if not self.keys.find(key):
            known = ", ".join(sorted(each.name for each in self.keys))
            raise InvalidConfig(f'Invalid device option "{key}": {self.name} takes {known}')
        self.keys.check(key, value)
        if value and key in self.later:
            raise NotSupported(
                f'Invalid value for device option "{key}": this version of lxpy does not have '
                f"that yet; remove the option"
            )


def options(*declared: tuple[str, Type] | tuple[str, Type, str] | ConfigKey) -> Keys:
    """Make a table of device options from (name, type[, default])."""
    return table(
        (each if isinstance(each, ConfigKey) else ConfigKey(*each) for each in declared), TEXTS
    )


def names(kinds: Iterable[str]) -> str:
    """Return names for a message: "disk, nic, none"."""
    return ", ".join(sorted(kinds))


def refused(device: str, error: LxpyError) -> LxpyError:
    """Return the error of a device as LXD words it, its class kept."""
    return type(error)(f'Device validation failed for "{device}": {error}')
