"""Is a score read at the closing token the same judgement as one read at the last token?

ChatML ends an answer with `<|im_end|>` and a line break. Transformers, TRL and vLLM read the score at the line break;
OpenRLHF and RL trainers, whose sequences end at EOS, read it at `<|im_end|>`. Training fits both; this module measures
how far they agree. Stands on `score`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any

import numpy as np

from plaudit.group import Group
from plaudit.model import is_encoder
from plaudit.render import Rendered
from plaudit.score import Scorer

MOST_GROUPS = 512
"""Groups that are measured: the figures move by a percent with more, and the time does not grow with the data."""

SAME_ORDER, MOVED = 0.9, 0.25
"""The tolerance: at least this share of pairs in the same order, and differences that deviate by at most this share of
the scores' own deviation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Scores of the same completions at their last token and at their closing token.

    A pair is two completions of one Group. `spread` is the standard deviation of the scores at the last token, `moved`
    that of the differences in units of it: a constant difference changes no comparison and is not counted there.
    """

    completions: int
    pairs: int
    same_order: float | None
    mean_difference: float
    max_difference: float
    moved: float | None
    spread: float
    comparisons: int
    accuracy_last: float | None
    accuracy_closing: float | None

    @property
    def agrees(self) -> bool:
        """Whether the two are the same judgement, to the tolerance."""
        return (self.same_order is None or self.same_order >= SAME_ORDER) and (self.moved or 0.0) <= MOVED

    def as_json(self) -> dict[str, Any]:
        """For report.json and plaudit.json."""
        names = (
            "completions", "pairs", "same_order", "mean_difference", "max_difference", "moved", "spread",
            "comparisons", "accuracy_last", "accuracy_closing",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"agrees": self.agrees}


def describe_ends(found: dict[str, Any]) -> str:
    """The agreement as a sentence, from its JSON."""
    order = (
        ""
        if found["same_order"] is None
        else f"{found['same_order']:.1%} of {found['pairs']:,} pairs in the same order, "
    )
    at_last, at_closing = found["accuracy_last"], found["accuracy_closing"]
    accuracy = "" if at_last is None else f"; accuracy {at_last:.1%} at the last token, {at_closing:.1%} at the closing"
    text = (
        f"read at the closing token instead of the last: {order}scores differ by {found['mean_difference']:.3g} on "
        f"average and {found['max_difference']:.3g} at most (their deviation is {found['spread']:.3g}){accuracy}"
    )
    if found["agrees"]:
        return text
    return (
        f"{text}. This is more than the tolerance ({SAME_ORDER:.0%} of pairs in order, differences of {MOVED:.0%} of "
        "the deviation): do not use this model where scores are read at EOS (OpenRLHF, RL trainers); train it with "
        "train.ends=both, on more data or for longer"
    )


def measure_ends(scorer: Scorer, groups: Iterable[Group], *, most: int = MOST_GROUPS) -> Ends | None:
    """Score the first Groups at both ends; None where the template writes no white space after an answer."""
    if is_encoder(scorer.net.hf) or not scorer.renderer.trailing:
        return None
    last: list[float] = []
    closing: list[float] = []
    margins: list[tuple[float, float]] = []
    pairs: list[tuple[float, float]] = []
    source = islice(groups, most)
    while window := list(islice(source, scorer.window)):
        rendered = scorer.renderer.render(window)
        for group, scores in zip(window, scorer.score_rendered([_read_twice(r) for r in rendered]), strict=True):
            size = len(scores.scores) // 2
            both = {
                k: (a, b)
                for k, (a, b) in enumerate(zip(scores.scores[:size], scores.scores[size:], strict=True))
                if a is not None and b is not None
            }
            last += [a for a, _ in both.values()]
            closing += [b for _, b in both.values()]
            pairs += [_margins(both[i], both[j]) for i, j in combinations(both, 2)]
            margins += [
                _margins(both[c.better], both[c.worse])
                for c in group.comparisons()
                if not c.is_tie and c.better in both and c.worse in both
            ]
    return _summarize(last, closing, pairs, margins) if last else None


def _read_twice(rendered: Rendered) -> Rendered:
    """Every completion to its last token, and once more to its closing token; nothing where the two are one."""
    if not any(rendered.trailing):
        return replace(rendered, ids=(None,) * len(rendered.ids) * 2, unscored=("one end",) * len(rendered.ids) * 2)
    ends = zip(rendered.ids, rendered.trailing, strict=True)
    closing = (ids if ids is None else ids[: len(ids) - count] for ids, count in ends)
    return replace(rendered, ids=(*rendered.ids, *closing), unscored=rendered.unscored * 2)


def _margins(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] - other[0], one[1] - other[1]


def _summarize(
    last: Sequence[float],
    closing: Sequence[float],
    pairs: list[tuple[float, float]],
    margins: list[tuple[float, float]],
) -> Ends:
    gap = np.array(closing) - np.array(last)
    spread = float(np.std(last))
    order = np.sign(np.array(pairs).reshape(-1, 2))
    right = np.array(margins).reshape(-1, 2)
    accuracy = ((right > 0) + 0.5 * (right == 0)).mean(axis=0).tolist() if margins else [None, None]
    return Ends(
        completions=len(last),
        pairs=len(pairs),
        same_order=float((order[:, 0] == order[:, 1]).mean()) if pairs else None,
        mean_difference=float(np.abs(gap).mean()),
        max_difference=float(np.abs(gap).max()),
        moved=float(np.std(gap)) / spread if spread else None,
        spread=spread,
        comparisons=len(margins),
        accuracy_last=accuracy[0],
        accuracy_closing=accuracy[1],
    )
