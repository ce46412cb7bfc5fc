"""The losses that there are, the one door to their functions, and the table of them that the docs show.

Part of `losses`, above every loss file: a new one is a file, a name in `config`, and a line here. Centering is an
option on all of them and so lives here. Invariant: the table names every loss of `LossName` once.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from plaudit.config.schema import LossName
from plaudit.losses import (
    bradley_terry,
    hinge,
    log_exp,
    ordinal,
    plackett_luce,
    regression,
    scaled_bt,
    token_wise,
)
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import weigh, widen
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets
from plaudit.losses.thresholds import OrdinalState

FILES = (bradley_terry, log_exp, hinge, ordinal, scaled_bt, plackett_luce, token_wise, regression)

LOSSES: Mapping[LossName, Loss] = {file.LOSS.name: file.LOSS for file in FILES}


def compute_loss(
    score_L: Tensor, targets: Targets, settings: LossSettings, thresholds: OrdinalState | None = None
) -> Tensor:
    """The weighted sum of a pack's losses, a scalar in fp32; divided by the step's `count` it is the step's mean.

    `thresholds` is what `ordinal` learns beside the model; without it they stay where the data put them. Where the
    targets have second readings, each reading counts half, and `agreement` keeps the two together.
    """
    total = _compute(score_L, targets, settings, thresholds)
    if targets.closing_L is None:
        return total
    closing_L = score_L[targets.closing_L]
    total = (total + _compute(closing_L, targets, settings, thresholds)) / 2
    if settings.agreement:
        gap_L = widen(closing_L) - widen(score_L[: len(closing_L)])
        total = total + settings.agreement * _mean_of_items(gap_L.square(), targets, LOSSES[settings.name].reads)
    return total


def _compute(score_L: Tensor, targets: Targets, settings: LossSettings, thresholds: OrdinalState | None) -> Tensor:
    """The loss of one reading of every completion."""
    loss = LOSSES[settings.name]
    learned = () if thresholds is None else (thresholds.thresholds().to(score_L.device),)
    total: Tensor = loss.compute(score_L, targets, settings, *learned)
    if settings.center:
        total = total + settings.center * _off_center(score_L, targets, loss.reads, settings.ties)
    return total


def _off_center(score_L: Tensor, targets: Targets, reads: Reads, ties: str) -> Tensor:
    """(2 · mean of the scores that an item speaks of)², summed with weights: (better + worse)² for a comparison."""
    score_L = widen(score_L)
    if reads is Reads.RATINGS:
        score_LA = score_L if score_L.dim() == 2 else score_L[:, None]
        own_N = score_LA[targets.rated_N, targets.attribute_N]
        return (targets.rating_weight_N * (2 * own_N).square()).sum()
    if reads is Reads.ORDERS:
        is_there_RK = targets.order_RK >= 0
        size_R = is_there_RK.sum(-1)
        mean_R = (score_L[targets.order_RK.clamp(min=0)] * is_there_RK).sum(-1) / size_R.clamp(min=1)
        # The weight is an item's, and the items of a ranking are its choices, as `items._num_choices` counts them: all
        # places but one, or without ties those that have a place below them.
        last_R1 = targets.tier_RK.masked_fill(~is_there_RK, -1).amax(-1, keepdim=True)
        choices_R = size_R - 1 if ties == "half" else (is_there_RK & (targets.tier_RK < last_R1)).sum(-1)
        return (targets.order_weight_R * choices_R * (2 * mean_R).square()).sum()
    return weigh((score_L[targets.better_C] + score_L[targets.worse_C]).square(), targets)


def _mean_of_items(value_L: Tensor, targets: Targets, reads: Reads) -> Tensor:
    """The mean of a value over the completions of an item, summed over items with their weights."""
    if reads is Reads.RATINGS:
        value_LA = value_L if value_L.dim() == 2 else value_L[:, None]
        return (targets.rating_weight_N * value_LA[targets.rated_N, targets.attribute_N]).sum()
    if reads is Reads.ORDERS:
        is_there_RK = targets.order_RK >= 0
        size_R = is_there_RK.sum(-1)
        mean_R = (value_L[targets.order_RK.clamp(min=0)] * is_there_RK).sum(-1) / size_R.clamp(min=1)
        # A ranking of K is K-1 choices, each an item of this weight.
        return (targets.order_weight_R * (size_R - 1) * mean_R).sum()
    return weigh((value_L[targets.better_C] + value_L[targets.worse_C]) / 2, targets)


def loss_table() -> str:
    """All losses as a Markdown table: what the docs show, and no second place to keep in step."""
    head = ("`loss.name`", "labels", "completions", "loss of an item", "prefer")
    rows = [(f"`{x.name}`", x.labels, x.completions, f"`{x.formula}`", x.prefer) for x in LOSSES.values()]
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
