"""YAML as its version 1.2 has it: `1e-5` is a number, and `no`, `on`, `12:30` and dates are texts.

Part of `config`; imported when the first YAML is read or written. What is written reads the same by these rules and by
those of 1.1, which most other readers keep. Invariant: a key never comes twice, and a text that is no YAML is one
YamlTextError, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
BREAK = re.compile("[\n\r\x85\u2028\u2029]")
WIDE = 1 << 30


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a scalar; a key may not come twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """PyYAML's, which takes the last of two equal keys without a word."""
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str" and key_node.tag != "tag:yaml.org,2002:merge":
                raise YamlTextError(f"the key {key_node.value!r} is no plain text; put it in quotes", line)
            if key_node.value in seen:
                raise YamlTextError(
                    f"the key {key_node.value!r} stands on line {seen[key_node.value]} and again on line {line}; "
                    "keep one of them",
                    line,
                )
            seen[key_node.value] = line
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found

    def construct_yaml_float(self, node: Any) -> float:
        """A number as Python reads it."""
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number, in base 8 and 16 as well."""
        text = str(self.construct_scalar(node))
        return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


class YamlTextError(ValueError):
    """Why a YAML text is refused."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.line = line


for _tag, _pattern, _first in (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    ("float", FLOAT, "-+0123456789."),
    ("merge", re.compile(r"<<"), "<"),
):
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as the text it is."""

    def ignore_aliases(self, data: Any) -> bool:
        """A value that comes twice is written twice."""
        return True

    def represent_str(self, data: str) -> Any:
        """A text with a line break of any kind in it keeps it as an escape: other styles fold or normalise them."""
        style = '"' if BREAK.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_list(self, data: list[Any]) -> Any:
        """A list of plain values on one line."""
        is_flat = not any(isinstance(item, dict | list) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=is_flat)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), list("-+0123456789."))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"(?:0o[0-7]+|[-+]?[0-9]+)$"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """One YAML document as plain data; raises ValueError with the reason."""
    return load_yaml(text)[0]


def load_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """One YAML document as plain data, and the line of each of its keys (dotted); raises YamlTextError."""
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
        return data, {} if node is None else dict(_lines(node, ""))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlTextError(error.problem or str(error), mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise YamlTextError(" ".join(str(error).split()), None) from None
    except RecursionError:
        raise YamlTextError("it is nested too deeply", None) from None
    finally:
        if loader is not None:
            loader.dispose()


def _lines(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{prefix}{key.value}", key.start_mark.line + 1
            yield from _lines(value, f"{prefix}{key.value}.")
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield f"{prefix.removesuffix('.')}[{number}]", value.start_mark.line + 1
            yield from _lines(value, f"{prefix.removesuffix('.')}[{number}].")


def dump_entry(key: str, value: Any, *, comment: str = "", indent: int = 0) -> str:
    """One `key: value` as YAML, with what there is to say of it behind it, or above it if it takes several lines."""
    text = yaml.dump(
        {key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=WIDE
    )
    lines = text.rstrip("\n").split("\n")
    note = f"# {' '.join(comment.split())}" if comment else ""
    if note and len(lines) == 1:
        lines = [f"{lines[0]}  {note}"]
    elif note:
        lines.insert(0, note)
    return "".join(f"{' ' * indent}{line}\n" for line in lines)
