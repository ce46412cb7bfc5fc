"""A file, a command's own arguments and `section.key=value` become one settled configuration.

Part of `config`. What is nearer to the person wins: default, then file, then command line. Invariant: every key is
known, every value fits, and nothing is said twice in one place, or one ConfigError says all that is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plaudit.config.complaints import Said, refuse_scalar, suggest_key, suggest_part_key, tell_errors
from plaudit.config.files import read_settings_file
from plaudit.config.kinds import is_auto, is_table, locate, plain_value, sections, settings, shape
from plaudit.config.schema import DataPart, TrainConfig
from plaudit.config.settled import Settled, build_config, list_values
from plaudit.errors import ConfigError
from plaudit.redaction import HIDDEN, hide_text, hide_values, holds_hidden

COMMAND_LINE = "command line"
RESUMED = "resumed run"
OVERRIDE = re.compile(r"([A-Za-z_]\w*+(?:\.[^=\s/\\]++)?)=(.*)", re.DOTALL)


def read_config(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    *,
    under: TrainConfig | None = None,
) -> Settled:
    """The configuration of a file, of `section.key=value` texts, and of `base`, a command's own arguments by key.

    An argument that is None or empty was not given. Paths are relative to where the command runs. `under` is what a run
    that goes on was told and has found out: it stands where nothing else is said now, and `auto` says nothing else.
    """
    said = read_said(file) if file is not None else {}
    given = [(key, value) for key, value in (base or {}).items() if value is not None and value not in ((), [], "")]
    command: dict[str, Said] = {}
    for key, value in [*given, *map(read_override, overrides)]:
        for name, one in flatten({key: value}, lambda _: COMMAND_LINE):
            if name in command:
                raise ConfigError(f"{name} came twice on the command line; keep one of the two")
            command[name] = Said(value=one, origin=COMMAND_LINE, place=COMMAND_LINE)
    merged = said | command
    if under is not None:
        merged = {key: one for key, one in merged.items() if not is_auto(key, one.value)}
        for key, value in list_values(under):
            if key not in merged and holds_hidden(plain_value(value)):
                raise ConfigError(
                    f"{key}: the run's own file has {HIDDEN} in place of a secret, and the value was needed; give "
                    f"{key} again, as when the run was begun"
                )
        so_far = {key: Said(value=value, origin=RESUMED, place=RESUMED) for key, value in list_values(under)}
        merged = so_far | merged
    _check_parts(merged)
    try:
        config = build_config({key: one.value for key, one in merged.items()})
    except ValidationError as error:
        raise ConfigError(tell_errors(error, merged)) from None
    return Settled(config=config, origins={key: one.origin for key, one in merged.items()})


def read_said(file: Path) -> dict[str, Said]:
    """What a file says, by dotted key."""
    read = read_settings_file(file)

    def place(key: str) -> str:
        return f"{file}, line {read.lines[key]}" if key in read.lines else str(file)

    found: dict[str, Said] = {}
    for key, value in flatten(read.data, place):
        if key in found:
            raise ConfigError(f"{file}: {key} came twice; keep one of the two")
        found[key] = Said(value=value, origin=file.name, place=place(key))
    return found


def is_override(word: str) -> bool:
    """Whether a word of a command line is `section.key=value`, and not the path of a file that is there."""
    return OVERRIDE.fullmatch(word) is not None and not os.path.exists(word)


def read_override(text: str) -> tuple[str, Any]:
    """One `section.key=value` as a key and a value of the kind that the key takes."""
    match = OVERRIDE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{hide_text(text, is_setting=True)!r} came, section.key=value was needed; for example train.epochs=2"
        )
    key, value = match.groups()
    return key, read_text(key, value)


def read_text(key: str, text: str) -> Any:
    """A text of the command line as what the key takes: texts and paths as they are, the rest by YAML's rules."""
    if not _is_known(key):
        return text  # which is said where all keys are checked
    match shape(settings()[locate(key)[0]]):
        case "text":
            return text
        case "parts" | "texts" | "numbers" if text.startswith(("[", "{")):
            return _read_value(key, text)
        case "parts":
            return text
        case "texts":
            return _split(text)
        case "numbers":
            return [_read_value(key, word) for word in _split(text)]
    return _read_value(key, text)


def _is_known(key: str) -> bool:
    try:
        locate(key)
    except KeyError:
        return False
    return True


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _read_value(key: str, text: str) -> Any:
    from plaudit.config.yamltext import read_yaml

    try:
        return read_yaml(text)
    except ValueError as error:
        shown = hide_values(text, key)
        raise ConfigError(f"{key}: {shown!r} came, which cannot be read ({error}); put texts in quotes") from None


def flatten(data: Mapping[str, Any], place: Callable[[str], str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value), the items of a table one by one; an unknown key raises ConfigError."""
    for name, value in data.items():
        key = f"{prefix}{name}"
        is_table_key = key in settings() and is_table(settings()[key])
        if key in sections() or is_table_key:
            if value is None:
                continue  # a heading with nothing under it
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}: {hide_values(value, key)!r} came ({place(key)}), {refuse_scalar(key)}")
            if is_table_key:
                yield from ((f"{key}.{item}", one) for item, one in value.items())
            else:
                yield from flatten(value, place, f"{key}.")
        elif _is_known(key):
            yield key, value
        else:
            raise ConfigError(f"unknown key {key} ({place(key)}); {suggest_key(key)}")


def _check_parts(said: Mapping[str, Said]) -> None:
    """Raise ConfigError for an unknown key in a source of data, naming the nearest."""
    for key in ("data", "eval"):
        value = said[key].value if key in said else ()
        parts = value if isinstance(value, list | tuple) else [value]
        for number, part in enumerate(parts):
            for name in part if isinstance(part, Mapping) else ():
                if name not in DataPart.model_fields:
                    where = f"{key}[{number}].{name} ({said[key].place})"
                    raise ConfigError(f"unknown key {where}; {suggest_part_key(str(name))}")
