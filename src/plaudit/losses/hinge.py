"""Comparisons are satisfied by a margin, and then left alone.

Part of `losses`. Invariant: adding a constant to all scores of a Group changes nothing.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from plaudit.config.schema import LossName
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import read_gap, take_both_sides, weigh
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets


def hinge(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """max(0, margin - (better - worse)), summed with weights; the margin is that of the label, 1 where it has none.

    Needs: labels of any kind, as comparisons of two. A tie is half a win each way, so that it pulls two scores together
    while they are more than 1 apart, and then lets them be.
    For: any number of completions.
    Prefer `bradley_terry`: its scores are log-odds, and it learns from every comparison. This one does not push
    comparisons further that it has right, which bounds scores and the pull of a few wrong labels.

    >>> from plaudit import pair
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> settings = LossSettings(name=LossName.HINGE)
    >>> loss_of(pair("Capital of Peru?", "Lima", "Cusco"), [1.0, 0.25], settings)
    0.25
    >>> loss_of(pair("Capital of Peru?", "Lima", "Cusco", margin=0.5), [1.0, 0.25], settings)
    0.0
    """
    gap_C = read_gap(score_L, targets)
    loss_C = take_both_sides(relu(targets.margin_C - gap_C), relu(targets.margin_C + gap_C), targets.is_tie_C, settings)
    return weigh(loss_C, targets)


LOSS = Loss(
    name=LossName.HINGE,
    reads=Reads.COMPARISONS,
    labels="comparisons; margins if there are any",
    completions="2 or more",
    prefer="`bradley_terry`, unless scores have to stay small or some labels are plainly wrong",
    formula="max(0, margin - (b - w)), margin 1 where none is given",
    compute=hinge,
    margin=1.0,
    takes_margins=True,
)
