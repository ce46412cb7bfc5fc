"""What a setting's type means to a person: the words for it, and how a text on the command line becomes a value.

Part of `config`, between `schema` and everything that talks to users. Invariant: the words of an error, of the
reference table and of the reading of a text come from the one declaration in `schema`, so they cannot contradict it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plaudit.config.schema import NOTHING, DataPart, Section, TrainConfig, Words


@cache
def settings() -> dict[str, FieldInfo]:
    """Every setting by its dotted key, in the order of the declaration; sections are not settings."""
    return dict(_settings(TrainConfig, ""))


def _settings(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in section.model_fields.items():
        if is_section(info.annotation):
            yield from _settings(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


@cache
def sections() -> dict[str, type[Section]]:
    """The sections by name."""
    return {name: info.annotation for name, info in TrainConfig.model_fields.items() if is_section(info.annotation)}


def part_keys() -> tuple[str, ...]:
    """The keys of one source of data, as they are named in sentences: data[].path."""
    return tuple(f"data[].{name}" for name in DataPart.model_fields)


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Whether a type is a section of settings."""
    return isinstance(annotation, type) and issubclass(annotation, Section) and annotation is not DataPart


def is_table(info: FieldInfo) -> bool:
    """Whether a setting is a table of names that are not ours to list."""
    return get_origin(info.annotation) is dict


def locate(key: str) -> tuple[str, str | None]:
    """The setting of a dotted key, and the item where the setting is a table: ("hf", "report_to")."""
    if key in settings():
        return key, None
    for name, info in settings().items():
        if is_table(info) and key.startswith(f"{name}.") and len(key) > len(name) + 1:
            return name, key[len(name) + 1 :]
    raise KeyError(key)


def core(annotation: Any) -> tuple[Any, bool]:
    """A type without its notes and without None, and whether None was part of it."""
    is_optional = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            rest = [a for a in get_args(annotation) if a is not type(None)]
            is_optional = is_optional or len(rest) < len(get_args(annotation))
            annotation = rest[0]
        else:
            return annotation, is_optional


def notes(info: FieldInfo) -> list[Any]:
    """Bounds and other notes of a setting, wherever in its type they stand; those of a list's items are not its own."""
    found, annotation = list(info.metadata), info.annotation
    while get_origin(annotation) in (Annotated, Union, UnionType):
        inside = get_args(annotation)
        if get_origin(annotation) is Annotated:
            found += [n for note in inside[1:] for n in (note.metadata if isinstance(note, FieldInfo) else [note])]
        annotation = next(a for a in inside if a is not type(None))
    return found


def nothing_word(info: FieldInfo) -> str | None:
    """The word for None of this setting; None where it cannot be None."""
    if not core(info.annotation)[1]:
        return None
    return next(word for word in NOTHING if f"{word}:" in (info.description or ""))


def is_auto(key: str, value: Any) -> bool:
    """Whether a value leaves it to the run to find out."""
    info = settings()[locate(key)[0]]
    return value == "auto" or (value is None and not is_table(info) and nothing_word(info) == "auto")


def needed_words(info: FieldInfo, item: bool = False) -> str:
    """What has to be written: "a number above 0, or auto"; with `item`, for one item of a list or table."""
    annotation, _ = core(info.annotation)
    if item:
        inside = get_args(annotation)
        return needed_words(_info_of(inside[-1] if get_origin(annotation) is dict else inside[0]))
    own = [note.needed for note in notes(info) if isinstance(note, Words)]
    words = own[0] if own else _words(annotation) + _bounds(info)
    word = nothing_word(info) if info.description else None
    return f"{words}, or {word}" if word else words


def _info_of(annotation: Any) -> FieldInfo:
    return FieldInfo.from_annotation(annotation)


def _words(annotation: Any) -> str:
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Any: "a value"}
    if annotation in simple:
        return simple[annotation]
    if choices := choices_of(annotation):
        return " or ".join(choices) if len(choices) == 2 else f"one of {', '.join(choices)}"
    if annotation is DataPart:
        return "a path, or a table with path, weight, name ..."
    inside = get_args(annotation)
    if get_origin(annotation) is dict:
        return "a table of numbers by name" if core(inside[1])[0] is float else "a table of names and values"
    kind = core(inside[0])[0] if inside else None
    if kind is DataPart:
        return "a path, or a list of paths and of tables with path, weight, name ..."
    many = {str: "texts", float: "numbers"}[kind] if kind in (str, float) else "values"
    return f"two {many}" if len(inside) == 2 and Ellipsis not in inside else f"a list of {many}"


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of a closed list, as they are written; empty for anything else."""
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def shape(info: FieldInfo) -> Literal["text", "texts", "numbers", "parts", "table", "value"]:
    """How a setting is written on a command line: a text as it is, a list with commas, paths, or a value of YAML."""
    annotation, _ = core(info.annotation)
    inside = [core(a)[0] for a in get_args(annotation)]
    if annotation is str or (choices_of(annotation) and all(isinstance(c, str) for c in inside)):
        return "text"
    if get_origin(annotation) is dict:
        return "table"
    return "texts" if str in inside else "numbers" if float in inside else "parts" if DataPart in inside else "value"


def _bounds(info: FieldInfo) -> str:
    """Bounds, in words; those of the items of a list are not the list's."""
    found = []
    for note in notes(info):
        for name, word in (("gt", "above"), ("ge", "of at least"), ("lt", "below"), ("le", "of at most")):
            limit = getattr(note, name, None)
            if limit is not None:
                found.append(f"{word} {limit:g}" if limit < 1e6 else f"{word} {limit}")
    return f" {' and '.join(found)}" if found else ""


def shown(info: FieldInfo, value: Any) -> Any:
    """A value as files and tables show it: plain data, and a word for None."""
    if value is None:
        return nothing_word(info)
    return plain_value(value)


def plain_value(value: Any) -> Any:
    """Plain data: lists, dicts, text, numbers. A part of the data with nothing but a path is that path."""
    if isinstance(value, DataPart):
        told = {name: plain_value(v) for name, v in value if v != DataPart.model_fields[name].default}
        return value.path if list(told) == ["path"] else told
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return value
