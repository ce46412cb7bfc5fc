"""Why a setting cannot be used, as one sentence: where it stands, what came, what was needed, what may be meant.

Part of `config`, above `reading`. Invariant: pydantic's own words never reach a user; what was needed is read off the
declaration in `schema`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from plaudit.config.elsewhere import find_counterpart
from plaudit.config.kinds import choices_of, core, is_section, is_table, needed_words, sections, settings
from plaudit.config.schema import DataPart, Section, TrainConfig
from plaudit.redaction import hide_values

MOST_TOLD = 5
MISSING = {
    "model": "name a folder, a hub name or smollm2: plaudit train MODEL DATA... --out RUN, or model: NAME in a file",
    "data": "name a file, a folder or a hub name: plaudit train MODEL DATA... --out RUN, or data: PATH in a file",
    "out": "name the folder of the run: --out RUN, or out: RUN in a file",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A value as someone gave it: `origin` is what is printed for it, `place` where exactly it stands."""

    value: Any
    origin: str
    place: str


def suggest_key(key: str) -> str:
    """What someone who wrote an unknown key is likely to mean."""
    if counterpart := find_counterpart(key):
        return f"here it is called {counterpart}"
    leaf = key.rpartition(".")[2]
    leaves = {name.rpartition(".")[2]: name for name in settings()}
    near = [leaves[leaf]] if leaf in leaves else difflib.get_close_matches(key, settings(), n=1, cutoff=0.75)
    near = near or [leaves[word] for word in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    if near:
        return f"did you mean {near[0]}?"
    return (
        f"the sections are {', '.join(sections())}, and a name of TrainingArguments goes under hf (hf.{leaf}); "
        "docs/training.md lists all keys"
    )


def suggest_part_key(name: str) -> str:
    """What someone who wrote an unknown key of a source of data is likely to mean."""
    near = difflib.get_close_matches(name, DataPart.model_fields, n=1)
    return f"did you mean {near[0]}?" if near else f"its keys are {', '.join(DataPart.model_fields)}"


def refuse_scalar(key: str) -> str:
    """What to do instead of giving a section, or a table, one value."""
    if key in sections():
        first = next(iter(sections()[key].model_fields))
        return f"but {key} is a section; set what is in it, such as {key}.{first}"
    return f"{needed_words(settings()[key])} was needed; set its items, such as {key}.NAME"


def tell_errors(error: ValidationError, said: Mapping[str, Said]) -> str:
    """All that pydantic found, as one sentence."""
    found = error.errors(include_url=False)
    inner = [one["loc"] for one in found]
    # A list whose item is wrong is itself called wrong as well: the item is what there is to say.
    deepest = [one for one in found if not any(len(loc) > len(one["loc"]) == _common(loc, one["loc"]) for loc in inner)]
    told = list(dict.fromkeys(_tell(one, said) for one in deepest))
    more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return "; ".join(told[:MOST_TOLD]) + more


def _tell(found: Any, said: Mapping[str, Said]) -> str:
    if found["type"] == "together":
        return str(found["ctx"]["sentence"])
    spot = _find(found["loc"])
    root = spot.key.partition("[")[0]
    if found["type"] == "missing" and not isinstance(found["loc"][-1], int):
        return f"{spot.key} is missing; {MISSING.get(spot.key, 'every source of data needs one')}"
    came = found["input"]
    if found["type"] == "missing":  # an item of a list that is too short
        came, spot = said[root].value, _Spot(key=root, info=spot.info)
    place = said[spot.key if spot.key in said else root].place
    needed = needed_words(spot.info, item=spot.is_item)
    verb = "were" if needed.startswith("two ") else "was"
    shown = _show(hide_values(came, spot.key))
    return f"{spot.key}: {shown} came ({place}), {needed} {verb} needed{_hint(came, spot.info, needed)}"


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many steps two locations share."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spot:
    """Where pydantic points: the dotted key, its declaration, and whether it is an item of it."""

    key: str
    info: FieldInfo
    is_item: bool = False


def _find(loc: tuple[int | str, ...]) -> _Spot:
    """The setting that a pydantic location is in; deeper than items of lists and tables it need not look."""
    model: type[Section] | None = TrainConfig
    spot = _Spot(key="", info=FieldInfo())
    for step in loc:
        if isinstance(step, int):
            model = DataPart if spot.key in ("data", "eval") else None
            spot = _Spot(key=f"{spot.key}[{step}]", info=spot.info, is_item=True)
        elif model is not None:
            info = model.model_fields[step]
            spot = _Spot(key=f"{spot.key}.{step}".removeprefix("."), info=info)
            model = info.annotation if is_section(info.annotation) else None
        elif is_table(spot.info) and step != "[key]" and not spot.is_item:
            spot = _Spot(key=f"{spot.key}.{step}", info=spot.info, is_item=True)
    return spot


def _show(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _hint(came: Any, info: FieldInfo, needed: str) -> str:
    """What is likely to mend it."""
    near = difflib.get_close_matches(str(came), choices_of(core(info.annotation)[0]), n=1)
    if near:
        return f"; did you mean {near[0]}?"
    if needed.startswith("text") and isinstance(came, int | float):
        return "; put it in quotes"
    if "number" in needed and isinstance(came, str) and came.strip().lstrip("+-.")[:1].isdigit():
        return "; write it without quotes or unit"
    return ""
