"""Graded preference: "slightly better", "better", "much better", with thresholds between them that are learned.

Part of `losses`, above `thresholds`. The gap between two scores plus logistic noise falls between two thresholds, and
the labeller names the grade in between; the other way round the same thresholds hold with the other sign.

    much worse | worse | slightly |  tie  | slightly | better | much better
             -θ3     -θ2        -θ1   0   θ1        θ2       θ3            gap

Invariant: the probabilities of all grades add up to one; adding a constant to all scores changes nothing.
Letters: C comparisons, G thresholds, L scores.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from plaudit.config.schema import LossName
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import read_gap, take_both_sides, weigh
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import GRADELESS, Targets
from plaudit.losses.thresholds import first_thresholds


def ordinal(score_L: Tensor, targets: Targets, settings: LossSettings, thresholds_G: Tensor | None = None) -> Tensor:
    """-log P(grade | better - worse), summed with weights; P is a logistic curve cut at thresholds that are learned.

    Needs: comparisons with margins (or ratings, whose differences are margins). Up to seven different margins are
    grades as they are; more are cut into four by how often they occur (`fit_loss`). Only the order of margins counts.
    A tie is a grade of its own, around zero (left out with `ties="drop"`, and then the first threshold is zero). A
    label without a margin says which side, and no grade: P is then that of all grades on that side.
    For: any number of completions.
    Prefer `scaled_bt` if margins are amounts and not grades; `bradley_terry` if there are none: with one grade and no
    ties the two are the same.

    Thresholds learn in an `OrdinalState`; without one they stay where the data's shares of grades put them.

    >>> from plaudit import pair
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> group = pair("Capital of Peru?", "Lima", "Cusco", margin=1.0)
    >>> graded = LossSettings(name=LossName.ORDINAL, ties="drop", cuts=(1.5,), grade_shares=(0.0, 0.5, 0.5))
    >>> [round(loss_of(group, [gap, 0.0], graded), 4) for gap in (0.0, 0.5, 3.0)]
    [1.3863, 1.3175, 2.4946]
    """
    if thresholds_G is None:
        thresholds_G = first_thresholds(settings).to(score_L.device)
    gap_C = read_gap(score_L, targets)
    edge_G = thresholds_G.to(gap_C.dtype)
    grade_C = targets.grade_C
    # edge[g] is where grade g begins; the tie, grade 0, begins at minus the first threshold.
    edge_G = torch.cat([-edge_G[:1], edge_G])
    lower_C = edge_G[torch.where(grade_C == GRADELESS, 1, grade_C)]
    is_open_C = (grade_C == GRADELESS) | (grade_C >= len(edge_G) - 1)
    # An open grade has no upper edge; any finite one keeps the slopes of the branch that is not taken finite.
    upper_C = torch.where(is_open_C, lower_C + 1, edge_G[(grade_C + 1).clamp(max=len(edge_G) - 1)])
    as_told, turned = (_fit(side, lower_C, upper_C, is_open_C) for side in (gap_C, -gap_C))
    return weigh(take_both_sides(as_told, turned, targets.is_tie_C, settings), targets)


def _fit(gap_C: Tensor, lower_C: Tensor, upper_C: Tensor, is_open_C: Tensor) -> Tensor:
    """-log(σ(gap - lower) - σ(gap - upper)), as a product, so that far gaps lose no digits."""
    width_C = upper_C - lower_C
    closing_C = logsigmoid(upper_C - gap_C) + torch.log(-torch.expm1(-width_C))
    return -(logsigmoid(gap_C - lower_C) + torch.where(is_open_C, 0.0, closing_C))


LOSS = Loss(
    name=LossName.ORDINAL,
    reads=Reads.COMPARISONS,
    labels="comparisons with graded margins, or ratings; ties are a grade",
    completions="2 or more",
    prefer="`scaled_bt` if margins are amounts; `bradley_terry` if there are none",
    formula="-log(σ(b - w - θ[g]) - σ(b - w - θ[g+1])), θ learned",
    compute=ordinal,
    takes_margins=True,
)
