"""Has the world moved away from a model? New data against the data that it was known to be good on.

Stands on `measure` and `score`, above `evaluate`. Three looks: whether it is right less often, whether
scores and lengths are spread differently, and how many answers lie where the reference has hardly any, by the distance
of hidden states. Invariant: the distance that counts as far is read off reference answers that had no part in fitting
it, so of data like the reference as many are far as is said, and every share comes with an interval by prompt.
Letters: N answers, D hidden.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg, special

from plaudit.group import Group
from plaudit.keys import Key, prompt_key
from plaudit.measure.accuracy import Accuracy, measure_accuracy
from plaudit.measure.intervals import LEVEL, Floats, Interval, Ints, rate_interval
from plaudit.measure.record import Record

if TYPE_CHECKING:
    from plaudit.measure import Table
    from plaudit.score import Scorer

MOST_ANSWERS, MOST_A_GROUP, WINDOW = 1_000, 4, 64
"""Answers a side whose hidden states are read, at most so many of one Group; and Groups that are read at once."""

FEWEST_ANSWERS = 60
"""Below this many reference answers, what is far cannot be told."""

FAR, FARTHER = 0.95, 0.99
MUCH, FALL = 0.10, 0.02
"""A share of far answers that is surely above the first, twice what is expected, is drift; so is a fall of accuracy."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hidden:
    """The hidden state that a score is read from, an answer a row, and a number for each one's prompt."""

    state_ND: Floats
    prompt_N: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class Distances(Record):
    """How many new answers lie farther out than all but 5% (and all but 1%) of held-out reference answers.

    `expected_high` is the share of data like the reference that can lie there, as few reference answers place the
    threshold only roughly.
    """

    share: float
    share_ci: Interval | None
    share_99: float
    share_99_ci: Interval | None
    n: int
    reference_n: int
    median: float
    reference_median: float
    expected_high: float = 1 - FAR

    @property
    def is_far(self) -> bool:
        """Whether surely more answers are far than matter, and than data like the reference could have."""
        return self.share_ci is not None and self.share_ci[0] > max(MUCH, self.expected_high)

    def as_json(self) -> dict[str, Any]:
        """As report.json has it; `expected` is the share of data like the reference."""
        return {**Record.as_json(self), "expected": 1 - FAR}


def draw_groups(groups: Iterable[Group], *, seed: int, most: int = MOST_ANSWERS) -> list[Group]:
    """Groups drawn by lot with about `most` answers in all, of one Group a few; memory is what is drawn."""
    lots = random.Random(seed)
    held = heapq.nsmallest(most, ((lots.random(), n, group) for n, group in enumerate(groups)))
    drawn: list[Group] = []
    left = most
    for _, _, group in held:
        if left <= 0:
            break
        few = group.completions[:MOST_A_GROUP]
        drawn.append(replace(group, completions=few, labels=()))
        left -= len(few)
    return drawn


def read_hidden(scorer: Scorer, groups: Sequence[Group], watch: Callable[[int, int], None] | None = None) -> Hidden:
    """The hidden states of all answers that can be scored; `watch` hears how many Groups are done, of how many."""
    import torch

    from plaudit.model import PLAIN
    from plaudit.pack import PackSettings, build_packs

    rows: list[Floats] = []
    prompts: list[Key] = []
    packing = PackSettings(budget=1 if scorer.net.backend == PLAIN else scorer.budget)
    for start in range(0, len(groups), WINDOW):
        window = groups[start : start + WINDOW]
        rendered = scorer.renderer.render(window)
        todo = [one.ids if one.dropped is None else (None,) * len(one.ids) for one in rendered]
        for pack in build_packs(todo, packing):
            with torch.inference_mode():
                rows.append(scorer.net.read_features(pack).cpu().numpy().astype(np.float64))
            prompts += [prompt_key(window[g]) for g, _ in pack.members_L]
        if watch:
            watch(start + len(window), len(groups))
    state_ND = np.concatenate(rows) if rows else np.zeros((0, 1))
    # What is no number has no place, and would have no distance.
    finite_N = np.isfinite(state_ND).all(axis=1)
    codes = {key: n for n, key in enumerate(dict.fromkeys(prompts))}
    prompt_N = np.array([codes[key] for key in prompts], dtype=np.int64)
    return Hidden(state_ND=state_ND[finite_N], prompt_N=prompt_N[finite_N])


def measure_distances(new: Hidden, reference: Hidden, *, seed: int) -> Distances | None:
    """How far out new answers lie; None where there are too few of either to tell.

    Half of the reference's prompts say where its answers are and how they spread, the other half how far out answers
    like them lie that had no part in that.
    """
    names = np.unique(reference.prompt_N)
    is_fitted_N = np.isin(reference.prompt_N, np.random.default_rng(seed).permutation(names)[: len(names) // 2])
    fitted_ND, held_ND = reference.state_ND[is_fitted_N], reference.state_ND[~is_fitted_N]
    if min(len(fitted_ND), len(held_ND)) < FEWEST_ANSWERS // 2 or len(new.state_ND) < 2:
        return None
    mean_D, spread_DD = fitted_ND.mean(axis=0), shrink_covariance(fitted_ND)
    own_N, new_N = (distance_from(x, mean_D, spread_DD) for x in (held_ND, new.state_ND))
    shares: list[tuple[float, Interval | None]] = []
    for level in (FAR, FARTHER):
        is_far_N = (new_N > np.quantile(own_N, level, method="higher")).astype(np.float64)
        shares.append((float(is_far_N.mean()), rate_interval(is_far_N, new.prompt_N, seed=seed)))
    (share, share_ci), (share_99, share_99_ci) = shares
    return Distances(
        share=share, share_ci=share_ci, share_99=share_99, share_99_ci=share_99_ci, n=len(new_N),
        reference_n=len(reference.state_ND), median=float(np.median(new_N)), reference_median=float(np.median(own_N)),
        expected_high=bound_tail(len(own_N), len(np.unique(reference.prompt_N[~is_fitted_N]))),
    )  # fmt: skip


def bound_tail(num_answers: int, num_prompts: int) -> float:
    """The share of data like the reference that lies beyond its held-out answers' threshold, at most, at 97.5%.

    The share beyond the r-th of m ordered answers has a beta distribution, whatever the answers' own is. Answers to one
    prompt lie together, so as many are counted as there are prompts.
    """
    beyond = num_answers - math.ceil(FAR * (num_answers - 1))
    scale = num_prompts / num_answers
    return float(special.betaincinv(beyond * scale, (num_answers + 1 - beyond) * scale, (1 + LEVEL) / 2))


def shrink_covariance(state_ND: Floats) -> Floats:
    """The covariance of the rows, drawn towards a round one as far as Ledoit and Wolf say; it can be inverted."""
    num_N, num_D = state_ND.shape
    x_ND = state_ND - state_ND.mean(axis=0)
    spread_DD: Floats = x_ND.T @ x_ND / num_N
    mean = float(np.trace(spread_DD)) / num_D
    squares = float((spread_DD**2).sum())
    noise = (float(((x_ND**2).sum(axis=1) ** 2).sum()) / num_N - squares) / num_N
    shape = squares - num_D * mean**2
    pull = min(noise / shape, 1.0) if shape > 0 else 1.0
    shrunk: Floats = (1 - pull) * spread_DD
    shrunk.flat[:: num_D + 1] += max(pull * mean, 1e-12)
    return shrunk


def distance_from(state_ND: Floats, mean_D: Floats, spread_DD: Floats) -> Floats:
    """Mahalanobis' distance of every row, over the root of D: about 1 for rows like those that were fitted."""
    lower_DD = linalg.cholesky(spread_DD, lower=True)
    solved_DN = linalg.solve_triangular(lower_DD, (state_ND - mean_D).T, lower=True)
    distance: Floats = np.sqrt((solved_DN**2).mean(axis=0))
    return distance


@dataclass(frozen=True, kw_only=True, slots=True)
class Fall(Record):
    """Accuracy on new data against the reference; None where one of the two has no comparison.

    `prompts` and `reference_prompts` have a measured comparison; only these are evidence.
    """

    new: float | None
    reference: float | None
    difference: float | None
    difference_ci: Interval | None
    n: int
    reference_n: int
    prompts: int = 0
    reference_prompts: int = 0

    @property
    def is_sure(self) -> bool:
        """Whether it is right less often, beyond chance and by enough to matter."""
        sure = self.difference_ci is not None and self.difference_ci[1] < 0
        return sure and self.difference is not None and self.difference <= -FALL

    @property
    def could_hide(self) -> bool:
        """Whether a fall that matters could go unseen: too few comparisons, or none."""
        return self.difference_ci is None or self.difference_ci[0] < -MUCH

    def say_needed(self) -> str:
        """How many labelled prompts there are, and about how many would show a fall that matters."""
        # Two shares of so many prompts each, at 95%; near 0 and 1 a share is taken for one a little inside.
        share = min(max(self.reference if self.reference is not None else 0.5, 0.1), 0.9)
        needed = math.ceil(2 * share * (1 - share) * (special.ndtri((1 + LEVEL) / 2) / MUCH) ** 2 / 10) * 10
        return f"labelled prompts: {min(self.prompts, self.reference_prompts):,}; about {needed} are needed"


def measure_fall(new: Table, reference: Table) -> Fall:
    """The difference of the two accuracies, with an interval."""
    return compare_accuracies(measure_accuracy(new), measure_accuracy(reference))


def compare_accuracies(new: Accuracy, reference: Accuracy) -> Fall:
    """The difference of two accuracies on different prompts, with an interval made of the two's own.

    Each end is as far from the difference as the accuracies' distances from their own ends allow together (Newcombe's
    method). Of few prompts, and near 0 and 1, those ends are exact.
    """
    difference = interval = None
    if new.accuracy is not None and reference.accuracy is not None:
        difference = new.accuracy - reference.accuracy
        assert new.accuracy_ci is not None and reference.accuracy_ci is not None, "a share always has an interval"
        below = math.hypot(new.accuracy - new.accuracy_ci[0], reference.accuracy_ci[1] - reference.accuracy)
        above = math.hypot(new.accuracy_ci[1] - new.accuracy, reference.accuracy - reference.accuracy_ci[0])
        interval = max(difference - below, -1.0), min(difference + above, 1.0)
    return Fall(
        new=new.accuracy,
        reference=reference.accuracy,
        difference=difference,
        difference_ci=interval,
        n=new.n,
        reference_n=reference.n,
        prompts=new.prompts,
        reference_prompts=reference.prompts,
    )


def judge_drift(fall: Fall, distances: Distances | None) -> tuple[str, str, list[str]]:
    """`retrain` (yes, label or no), the verdict as a sentence, and what it stands on."""
    reasons: list[str] = []
    if fall.difference is None:
        reasons.append("the new data have no labels, so whether the model is still right is not known")
    else:
        reasons.append(f"accuracy {_say_fall(fall)}")
    is_far = distances is not None and distances.is_far
    if distances is None:
        reasons.append("too few answers to tell how many lie far from the reference")
    else:
        reasons.append(f"{distances.share:.0%} of the answers lie farther out than {FAR:.0%} of the reference's do")
    if fall.is_sure:
        return "yes", "Retrain: the model is right less often on the new data than on the reference.", reasons
    if is_far and fall.could_hide:
        return (
            "label",
            "Label some of the new data before you trust the scores: many answers are unlike the reference, and "
            "there are too few labels to show whether the model is still right about them.",
            reasons,
        )
    if is_far:
        return (
            "no",
            "No need to retrain yet: many answers are unlike the reference, but the model is as right about them. "
            "Look again with the next data.",
            reasons,
        )
    if fall.could_hide:
        lacking = f" ({fall.say_needed()})" if fall.difference is not None else ""
        return "no", f"No sign of drift; but with so few labels a fall of accuracy could go unseen{lacking}.", reasons
    return "no", "No need to retrain: the new data are like the reference to this model.", reasons


def _say_fall(fall: Fall) -> str:
    assert fall.new is not None and fall.reference is not None
    said = (
        f"{fall.new:.1%} on {fall.n:,} new comparisons, {fall.reference:.1%} on {fall.reference_n:,} of the reference"
    )
    if fall.difference is None or fall.difference_ci is None:
        return said
    low, high = (100 * end for end in fall.difference_ci)
    return f"{said}: {100 * fall.difference:+.1f} points [{low:+.1f}, {high:+.1f}]"
