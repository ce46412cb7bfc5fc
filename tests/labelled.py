"""Groups with random labels of every kind, and the losses written out slowly, label by label, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from hypothesis import strategies as st

from plaudit import Completion, Group, Label, Preference, Ranking, Ratings, Tie
from plaudit.losses import LossName, LossSettings

COMPARING = [name for name in LossName if name not in (LossName.PLACKETT_LUCE, LossName.REGRESSION)]
AT_LEAVES = [name for name in LossName if name is not LossName.TOKEN_WISE]
ANNOTATORS = (None, "ann1", "ann2", "ann2/clarity")
CUTS, SHARES = (0.75, 1.5), (0.2, 0.3, 0.3, 0.2)

Side = tuple[int, int, bool, float | None, bool, float]
"""better, worse, is it a tie, margin, does the label itself say it, weight"""


def group_of(num: int, *labels: Label, meta: dict[str, object] | None = None) -> Group:
    completions = tuple(Completion(content=f"answer {k}") for k in range(num))
    return Group(prompt="why?", completions=completions, labels=labels, meta=meta or {})


@st.composite
def groups(draw: st.DrawFn, most: int = 5) -> Group:
    """A Group of 1 to 5 completions with up to 4 labels of any kind."""
    num = draw(st.integers(1, most))
    labels = draw(st.lists(label_over(num), max_size=4))
    return group_of(num, *labels)


def label_over(num: int) -> st.SearchStrategy[Label]:
    rest = {"by": st.sampled_from(ANNOTATORS), "weight": st.sampled_from((0.0, 0.5, 1.0, 3.0))}
    ratings = st.builds(
        Ratings,
        ratings=st.lists(st.sampled_from((None, 1.0, 2.0, 2.5, 4.0)), min_size=num, max_size=num).map(tuple),
        **rest,
    )
    if num < 2:
        return ratings
    several = st.lists(st.integers(0, num - 1), min_size=2, max_size=num, unique=True)
    preference = several.flatmap(
        lambda two: st.builds(
            Preference,
            better=st.just(two[0]),
            worse=st.just(two[1]),
            margin=st.sampled_from((None, 0.0, 0.5, 1.0, 2.0)),
            **rest,
        )
    )
    ranking = st.builds(Ranking, order=several.map(tuple), **rest)
    return st.one_of(preference, ranking, ratings, st.builds(Tie, tie=several.map(tuple), **rest))


@st.composite
def loss_settings(draw: st.DrawFn, names: Sequence[LossName] = tuple(LossName)) -> LossSettings:
    name = draw(st.sampled_from(names))
    can_smooth = name not in (LossName.PLACKETT_LUCE, LossName.REGRESSION)
    return LossSettings(
        name=name,
        label_smoothing=draw(st.sampled_from((0.0, 0.1))) if can_smooth else 0.0,
        center=draw(st.sampled_from((0.0, 0.01))),
        margins=draw(st.booleans()),
        mean_over=draw(st.sampled_from(("groups", "comparisons"))),
        annotators=draw(st.sampled_from(({}, {"ann1": 0.25}, {"ann1": 0.0, "ann2": 2.0}))),
        ties=draw(st.sampled_from(("half", "drop"))),
        means=(2.0,),
        spreads=(1.5,),
        strength_unit=0.8,
        cuts=CUTS,
        grade_shares=SHARES,
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def soft(x: float) -> float:
    """-log σ(x)"""
    return math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x)) - x


def log_sum(*scores: float) -> float:
    top = max(scores)
    return top + math.log(sum(math.exp(s - top) for s in scores))


def weight_of(label: Label, settings: LossSettings) -> float:
    by = label.by or ""
    return label.weight * settings.annotators.get(by, settings.annotators.get(by.split("/")[0], 1.0))


def list_sides(group: Group, is_there: Sequence[bool], settings: LossSettings) -> Iterator[Side]:
    """All comparisons that can be learned from, without asking the labels for them."""
    for label in group.labels:
        weight = weight_of(label, settings)
        found: list[Side] = []
        match label:
            case Preference():
                found.append((label.better, label.worse, False, label.margin, True, weight))
            case Tie():
                found += [(a, b, True, None, False, weight) for a, b in combinations(label.tie, 2)]
            case Ranking():
                found += [(a, b, False, None, False, weight) for a, b in combinations(label.order, 2)]
            case Ratings():
                rated = [(r, k) for k, r in enumerate(label.ratings) if r is not None]
                for (r, a), (q, b) in combinations(rated, 2):
                    better, worse = (a, b) if r >= q else (b, a)
                    found.append((better, worse, r == q, None if r == q else abs(r - q), False, weight))
        for side in found:
            is_slack = settings.name is LossName.SCALED_BT and settings.margins and side[3] == 0
            is_dropped = settings.ties == "drop" and side[2]
            if is_there[side[0]] and is_there[side[1]] and weight and not is_slack and not is_dropped:
                yield side


def slow_item(side: Side, gap: float, settings: LossSettings, edges: Sequence[float]) -> float:
    """The loss of one comparison whose scores are this far apart."""
    _, _, is_tie, margin, is_said, _ = side
    told = margin if is_said and settings.margins else None
    grades = [*edges, math.inf]

    def grade(d: float) -> float:
        if is_tie:
            return -math.log(sigmoid(edges[0] - d) - sigmoid(-edges[0] - d))
        if margin is None or not settings.margins:
            return soft(d - edges[0])
        g = sum(margin >= cut for cut in settings.cuts)
        return -math.log(sigmoid(d - grades[g]) - sigmoid(d - grades[g + 1]))

    one: Callable[[float], float] = {
        LossName.BRADLEY_TERRY: lambda d: soft(d - (told or 0.0)),
        LossName.LOG_EXP: soft,
        LossName.HINGE: lambda d: max(0.0, (1.0 if told is None else told) - d),
        LossName.SCALED_BT: soft,
        LossName.TOKEN_WISE: soft,
        LossName.ORDINAL: grade,
    }[settings.name]
    other = 0.5 if is_tie else settings.label_smoothing
    both = (1 - other) * one(gap) + other * one(-gap)
    is_strong = settings.name is LossName.SCALED_BT and margin is not None and settings.margins
    return both * (margin or 0.0) / settings.strength_unit if is_strong else both


def list_tiers(label: Label) -> list[list[int]]:
    match label:
        case Preference():
            return [[label.better], [label.worse]]
        case Ranking():
            return [[k] for k in label.order]
        case Tie():
            return [list(label.tie)]
        case Ratings():
            known = sorted({r for r in label.ratings if r is not None}, reverse=True)
            return [[k for k, q in enumerate(label.ratings) if q == r] for r in known]
    raise AssertionError(label)


def slow_order(tiers: Sequence[Sequence[int]], scores: Sequence[float], settings: LossSettings) -> tuple[float, int]:
    """The loss of a ranking with ties, and how many choices it is."""
    total, num = 0.0, 0
    for n, tier in enumerate(tiers):
        below = [scores[k] for later in tiers[n + 1 :] for k in later]
        for k in tier:
            level = log_sum(*(scores[j] for j in tier), *below)
            last = log_sum(scores[k], *below)
            total += (0.5 * (level + last) if settings.ties == "half" else last) - scores[k]
        num += len(tier)
    return total, num - (1 if settings.ties == "half" else len(tiers[-1]) if tiers else 0)


def slow_loss(
    group: Group, is_there: Sequence[bool], scores: Sequence[float], settings: LossSettings, edges: Sequence[float]
) -> tuple[float, float] | None:
    """The weighted sum of a Group's losses, and what it counts in the mean; None if it teaches nothing."""
    found: list[tuple[float, float, int]] = []  # loss of all its choices, weight of one, how many they are
    center = settings.center
    if settings.name is LossName.REGRESSION:
        for label in group.labels:
            for k, rating in enumerate(label.ratings if isinstance(label, Ratings) else ()):
                if rating is not None and is_there[k] and weight_of(label, settings):
                    error = scores[k] - (rating - settings.means[0]) / settings.spreads[0]
                    found.append((error**2 + center * (2 * scores[k]) ** 2, weight_of(label, settings), 1))
    elif settings.name is LossName.PLACKETT_LUCE:
        for label in group.labels:
            tiers = [[k for k in tier if is_there[k]] for tier in list_tiers(label)]
            tiers = [tier for tier in tiers if tier]
            loss, num = slow_order(tiers, scores, settings)
            if num > 0 and weight_of(label, settings):
                ranked = [scores[k] for tier in tiers for k in tier]
                off = num * (2 * sum(ranked) / len(ranked)) ** 2
                found.append((loss + center * off, weight_of(label, settings), num))
    else:
        for side in list_sides(group, is_there, settings):
            better, worse = scores[side[0]], scores[side[1]]
            item = slow_item(side, better - worse, settings, edges) + center * (better + worse) ** 2
            found.append((item, side[5], 1))
    num = sum(n for _, _, n in found)
    if not num:
        return None
    share = 1 / num if settings.mean_over == "groups" else 1.0
    return sum(loss * weight for loss, weight, _ in found) * share, sum(w * n for _, w, n in found) * share
