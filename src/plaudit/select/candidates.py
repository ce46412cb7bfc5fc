"""What is chosen from: one prompt's completions with their scores, and the number that choosing goes by.

First step of `select`; stands on `formats` and `keys`, no torch. Invariant: a completion without a score is never
chosen, an answer that is there twice is chosen once, and the order is the same for the same rows and seed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from plaudit.errors import DataError
from plaudit.formats import Row
from plaudit.formats.content import GOLD_SCORES, as_rating
from plaudit.group import Group
from plaudit.keys import content_key, draw_lot, normalise_text, prompt_key

By = Literal["scores", "length_corrected_scores", "per_token_scores"]
"""The column that choosing goes by."""

_HOW = {
    "scores": "score the rows first with plaudit score MODEL FILE -o SCORED",
    "length_corrected_scores": "score the rows with plaudit score MODEL FILE --length-corrected -o SCORED",
    "per_token_scores": "score the rows with plaudit score MODEL FILE --per-token -o SCORED",
}
NO_ROWS = "no rows came; rows with completions and scores were needed"
_SHINGLE = 3
_WORD = re.compile(r"\w+")

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """A Group, the scores that a model gave, and the `values` that choosing goes by (the scores themselves, mostly).

    `gold` is what the answers are worth by others, where the row says so.
    """

    group: Group
    scores: Values
    values: Values
    name: str
    gold: Values | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Eligible:
    """Who may be chosen of one Group, best first, and how many may not, by the reason."""

    order: tuple[int, ...]
    unscored: int = 0
    below: int = 0
    doubles: int = 0


def read_candidates(row: Row, by: By = "scores") -> Candidates:
    """The scored completions of a row; a DataError names the row where scores are missing, too few or too many."""
    scores = read_values(row, "scores", _HOW["scores"])
    values = scores if by == "scores" else read_values(row, by, _HOW[by])
    name = row.group.id if row.group.id is not None else f"{row.file}:{row.line}"
    gold = read_values(row, GOLD_SCORES, "leave the column out") if row.raw.get(GOLD_SCORES) is not None else None
    return Candidates(group=row.group, scores=scores, values=values, name=name, gold=gold)


def read_values(row: Row, column: str, how: str) -> Values:
    """The column's list, one number or null a completion; a DataError says `how` such a column comes about."""
    found = row.raw.get(column)
    if not isinstance(found, list):
        what = "it is missing" if found is None else f"{type(found).__name__} came"
        raise DataError(
            f"{what}, a list with one number a completion was needed: {how}",
            file=row.file, line=row.line, field=column,
        )  # fmt: skip
    if len(found) != len(row.group.completions):
        raise DataError(
            f"{len(found)} numbers came for {len(row.group.completions)} completions; one each was needed",
            file=row.file, line=row.line, field=column,
        )  # fmt: skip
    try:
        return tuple([as_rating(value, column) for value in found])
    except DataError as error:
        raise DataError(error.reason, file=row.file, line=row.line, field=column) from None


def rank_eligible(
    candidates: Candidates, *, min_score: float | None = None, near: float | None = None, seed: int = 0
) -> Eligible:
    """The completions that may be chosen, best first; equal values stand in the order of lots drawn from `seed`.

    Answers that differ in case or white space alone are the same answer; with `near`, also those whose sets of three
    consecutive words overlap by that share (Jaccard). The best of them stays.
    """
    values, completions = candidates.values, candidates.group.completions
    scored = [k for k, value in enumerate(values) if value is not None]
    enough = [k for k in scored if min_score is None or (values[k] or 0.0) >= min_score]
    ranked = sorted(enough, key=lambda k: -(values[k] or 0.0))
    if len({values[k] for k in ranked}) < len(ranked):
        key = prompt_key(candidates.group)
        lot = {k: draw_lot(seed, "select", key, content_key(completions[k].content)) for k in ranked}
        ranked.sort(key=lambda k: (-(values[k] or 0.0), lot[k], k))
    order = _drop_doubles([completion.text for completion in completions], ranked, near)
    return Eligible(
        order=tuple(order),
        unscored=len(values) - len(scored),
        below=len(scored) - len(enough),
        doubles=len(ranked) - len(order),
    )


def _drop_doubles(texts: list[str], ranked: list[int], near: float | None) -> list[int]:
    """`ranked` without those that say what a better one says."""
    kept: list[int] = []
    seen: set[str] = set()
    shingles: list[frozenset[tuple[str, ...]]] = []
    for k in ranked:
        text = normalise_text(texts[k])
        if text in seen:
            continue
        if near is not None:
            mine = _shingle(text)
            if any(_overlap(mine, other) >= near for other in shingles):
                continue
            shingles.append(mine)
        seen.add(text)
        kept.append(k)
    return kept


def _shingle(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORD.findall(text)
    return frozenset(tuple(words[at : at + _SHINGLE]) for at in range(max(1, len(words) - _SHINGLE + 1)))


def _overlap(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
