"""JSON text to rows and back, strictly.

First step of `formats`: everything that is JSON passes here. Invariant: what is accepted can be written again
unchanged. Repeated keys, NaN, Infinity, numbers beyond a float, and halves of surrogate pairs are refused with a
sentence, because a reader that lets them in loses something silently, or fails far from the row that brought them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from plaudit.errors import DataError

MEND = "mend the row, or set it aside with --bad-rows skip=PATH"


class BrokenJSONError(DataError):
    """Text that is no JSON; `lineno` counts the lines of the text from 1."""

    def __init__(self, message: str, lineno: int) -> None:
        super().__init__(message)
        self.lineno = lineno


class RefusedJSON(ValueError):
    """JSON that is well formed and still not acceptable; a kind of its own because reading on will not mend it."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; refused when a key came twice, for one of the two values would be lost."""
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise RefusedJSON(f"the key {twice!r} came twice in one object")
    return row


def refuse_constant(name: str) -> Any:
    """NaN and the infinities are not JSON, and no label can use them."""
    raise RefusedJSON(f"{name} came, which is not a number in JSON")


def finite_float(text: str) -> float:
    """The float that `text` spells; refused when it is too large to be one."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise RefusedJSON(f"the number {text[:40]} is too large to be held")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant, parse_float=finite_float)
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=True)


def parse_json(text: str) -> Any:
    """The value that `text` spells; a DataError says what is wrong with it and where."""
    try:
        value = DECODER.decode(text)
    except RefusedJSON as error:
        raise DataError(f"{error}; {MEND}") from None
    except json.JSONDecodeError as error:
        raise BrokenJSONError(
            f"broken JSON came ({error.msg}, column {error.colno}), one whole JSON object was needed; {MEND}",
            error.lineno,
        ) from None
    except ValueError as error:
        raise DataError(f"JSON that Python refuses came ({error}); {MEND}") from None
    except RecursionError:
        raise DataError(f"JSON nested too deeply to be read came; {MEND}") from None
    # A half of a surrogate pair can only come from an escape: the bytes were decoded strictly.
    if "\\u" in text:
        check_encodable(value)
    return value


def parse_row(text: str) -> dict[str, Any]:
    """The row that `text` spells: a JSON object, and nothing else."""
    value = parse_json(text)
    if type(value) is not dict:
        raise DataError(f"{name_type(value)} came, a JSON object was needed; {MEND}")
    return value


def check_encodable(value: Any) -> None:
    """Raise DataError if any text in `value` holds half of a surrogate pair, which no UTF-8 file can keep."""
    try:
        ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"half of a surrogate pair (U+{ord(error.object[error.start]):04X}) came in a text, "
            f"whole characters were needed; {MEND}"
        ) from None
    except RecursionError:
        raise DataError(f"JSON nested too deeply to be kept came; {MEND}") from None


def not_utf8(error: UnicodeDecodeError) -> DataError:
    """Bytes that are not text."""
    byte = error.object[error.start]
    return DataError(f"the byte 0x{byte:02X} came where UTF-8 text was needed; convert the file to UTF-8")


def dump_json(value: Any) -> str:
    """`value` as JSON on one line, floats in full; raises TypeError, ValueError or RecursionError as json does."""
    return ENCODER.encode(value)


def dump_row(row: dict[str, Any]) -> bytes:
    """`row` as one line of UTF-8 JSON without its newline; a DataError names the field that JSON cannot hold."""
    try:
        return ENCODER.encode(row).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        field, cause = find_unwritable(row) or (None, error)
        raise DataError(
            f"a value that JSON cannot hold came ({explain(cause)}); nothing was written", field=field
        ) from None


def find_unwritable(row: dict[str, Any]) -> tuple[str, Exception] | None:
    """The first field of `row` that cannot be written, and why."""
    for name, value in row.items():
        try:
            ENCODER.encode({name: value}).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            return str(name).encode("utf-8", "replace").decode("utf-8"), error
    return None


def null_nonfinite(value: Any) -> tuple[Any, int]:
    """`value` with null for each NaN and infinity in it, and how many there were. Only tables can hold them."""
    if isinstance(value, float):
        return (value, 0) if math.isfinite(value) else (None, 1)
    if isinstance(value, dict):
        pairs = {name: null_nonfinite(item) for name, item in value.items()}
        return {name: item for name, (item, _) in pairs.items()}, sum(count for _, count in pairs.values())
    if isinstance(value, list | tuple):
        items = [null_nonfinite(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    return value, 0


def explain(error: Exception) -> str:
    """The cause in words that do not need Python to be known."""
    if isinstance(error, UnicodeEncodeError):
        return f"half of a surrogate pair, U+{ord(error.object[error.start]):04X}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if "Out of range float" in str(error):
        return "NaN or an infinity"
    return str(error)


def is_json(value: Any) -> bool:
    """Whether reading `value` back from JSON would give it again: text keys, finite numbers, no foreign objects."""
    # A stack of its own, so that depth is no danger here; what is too deep to be written is refused at writing.
    todo = [value]
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind is float:
            if item - item != 0.0:
                return False
        elif kind is dict:
            if not all(type(key) is str for key in item):
                return False
            todo.extend(item.values())
        elif kind in (list, tuple):
            todo.extend(item)
        elif not (item is None or kind in (str, bool, int)):
            return False
    return True


def name_type(value: Any) -> str:
    """What came, in JSON's words."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        tuple: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")
