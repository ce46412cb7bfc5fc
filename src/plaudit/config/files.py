"""Files of settings, read as what their names say they are.

Part of `config`. YAML costs an import, which `yamltext` saves those who read none. Invariant: every error names the
file and, where the format tells, the line; a key that stands twice in a file is one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingsFile:
    """What a file says, and on which line each of its keys stands (dotted; none for TOML and JSON)."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)


def read_settings_file(path: Path) -> SettingsFile:
    """A file of settings; raises ConfigError, naming file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: it is no UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a YAML or TOML file of settings") from None
    kind = {".toml": "TOML", ".json": "JSON"}.get(path.suffix.lower(), "YAML")
    lines: dict[str, int] = {}
    try:
        if kind == "TOML":
            data: Any = tomllib.loads(text)
        elif kind == "JSON":
            data = json.loads(text, object_pairs_hook=_unique)
        else:
            data, lines = _load_yaml(path, text)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: it could not be read as {kind} ({error}); mend it") from None
    if not isinstance(data, dict | None):
        raise ConfigError(f"{path}: a {type(data).__name__} came, settings (key: value) were needed")
    return SettingsFile(path=path, data=data or {}, lines=lines)


def _load_yaml(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    from plaudit.config.yamltext import YamlTextError, load_yaml

    try:
        return load_yaml(text)
    except YamlTextError as error:
        place = f", line {error.line}" if error.line else ""
        raise ConfigError(f"{path}{place}: {error}") from None


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each of whose keys came once."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands there twice")
        found[key] = value
    return found
