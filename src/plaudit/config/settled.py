"""A configuration with the origin of every value: what a person set, what is a default, what was derived and why.

Part of `config`. Training prints it, saves it, and goes on from it. Invariant: what a person set is never replaced; a
derived value comes with its reason, and only where nobody said anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plaudit import __version__
from plaudit.config.kinds import is_table, locate, plain_value, settings, shown
from plaudit.config.schema import TrainConfig
from plaudit.errors import InternalError
from plaudit.files import write_file

DEFAULT = "default"
DERIVED = "derived: "


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One line of an explanation; the value is plain data, `auto` and `none` where it is None."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A setting that two configurations do not share."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.was!r}, now {self.now!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """A configuration, and where each of its values came from, by dotted key (`default` where it is not listed)."""

    config: TrainConfig
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """Where a value came from: `default`, a file's name, `command line`, or `derived: ` and why."""
        return self.origins.get(key, DEFAULT)

    def is_open(self, key: str) -> bool:
        """Whether nobody set it: it is still to be found out, or a default, or was derived."""
        origin = self.origin(key)
        return read_value(self.config, key) in (None, "auto") or origin == DEFAULT or origin.startswith(DERIVED)

    def settle(self, values: Mapping[str, Any], why: str) -> Settled:
        """The same with these values, found out and not asked for; `why` is the reason that is printed and saved."""
        closed = [key for key in values if not self.is_open(key)]
        if closed:
            raise InternalError(f"{closed[0]} came from {self.origin(closed[0])}, and was to be derived ({why})")
        try:
            config = build_config({**dict(list_values(self.config)), **values})
        except ValidationError as error:
            raise InternalError(f"{', '.join(values)}: derived values do not fit ({why}): {error}") from None
        return Settled(config=config, origins={**self.origins, **dict.fromkeys(values, DERIVED + why)})

    def explain(self) -> list[Setting]:
        """Every value with its origin, in the order of the reference table."""
        return [
            Setting(key=key, value=shown(settings()[locate(key)[0]], value), origin=self.origin(key))
            for key, value in list_values(self.config)
        ]

    def to_yaml(self) -> str:
        """The whole configuration as a file that reads back equal; origins stand beside the values."""
        from plaudit.config.yamltext import dump_entry

        text, section = f"# plaudit {__version__}; behind a value stands where it came from, if it is no default\n", ""
        for key, info in settings().items():
            head, _, name = key.rpartition(".")
            if head != section:
                section, text = head, f"{text}\n" + (f"{head}:\n" if head else "")
            indent, value = 2 if head else 0, read_value(self.config, key)
            if is_table(info) and value:
                text += f"{' ' * indent}{name}:\n"
                entries = [(item, v, f"{key}.{item}", indent + 2) for item, v in value.items()]
            else:
                entries = [(name, shown(info, value), key, indent)]
            for word, v, whole, spaces in entries:
                origin = self.origin(whole)
                text += dump_entry(word, plain_value(v), comment="" if origin == DEFAULT else origin, indent=spaces)
        return text

    def write_yaml(self, path: Path) -> None:
        """Write `to_yaml` into a file that is whole or not there."""
        write_file(path, self.to_yaml())


def list_values(config: TrainConfig) -> Iterator[tuple[str, Any]]:
    """Every value by its dotted key; the items of a table one by one."""
    for key, info in settings().items():
        value = read_value(config, key)
        if is_table(info):
            yield from ((f"{key}.{item}", v) for item, v in value.items())
        else:
            yield key, value


def read_value(config: TrainConfig, key: str) -> Any:
    """The value of a dotted key; None for an item that a table does not have."""
    name, item = locate(key)
    value: Any = config
    for word in name.split("."):
        value = getattr(value, word)
    return value if item is None else value.get(item)


def build_config(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration of these values, by dotted key; raises pydantic's ValidationError."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        name, item = locate(key)
        *path, last = [*name.split("."), *([] if item is None else [item])]
        inner = nested
        for word in path:
            inner = inner.setdefault(word, {})
        inner[last] = value
    return TrainConfig.model_validate(nested)


def compare_configs(was: TrainConfig, now: TrainConfig) -> list[Difference]:
    """The settings that the two do not share, in the order of the reference table."""
    old, new = dict(list_values(was)), dict(list_values(now))
    return [
        Difference(key=key, was=_told(key, old), now=_told(key, new))
        for key in dict.fromkeys([*old, *new])
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def _told(key: str, values: Mapping[str, Any]) -> Any:
    return shown(settings()[locate(key)[0]], values[key]) if key in values else "not there"
