"""Bradley and Terry's model without margins, in the form that OpenRLHF calls logexp.

Part of `losses`. Invariant: adding a constant to all scores of a Group changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.config.schema import LossName
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import read_gap, take_both_sides, weigh
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets


def log_exp(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """log(1 + exp(worse - better)), summed with weights; computed so that it does not overflow.

    Needs: labels of any kind, as comparisons of two; margins are not looked at.
    For: any number of completions.
    Prefer `bradley_terry`: it is the same number where no label has a margin, and knows margins where labels have them.
    This one is for runs that go on from OpenRLHF's, whose loss of this name ignores margins, too.

    >>> from plaudit import pair
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> group = pair("Capital of Peru?", "Lima", "Cusco", margin=3.0)
    >>> round(loss_of(group, [2.0, 0.5], LossSettings(name=LossName.LOG_EXP)), 4)
    0.2014
    """
    gap_C = read_gap(score_L, targets)
    zero = gap_C.new_zeros(())
    loss_C = take_both_sides(torch.logaddexp(zero, -gap_C), torch.logaddexp(zero, gap_C), targets.is_tie_C, settings)
    return weigh(loss_C, targets)


LOSS = Loss(
    name=LossName.LOG_EXP,
    reads=Reads.COMPARISONS,
    labels="comparisons",
    completions="2 or more",
    prefer="`bradley_terry`, the same where no label has a margin; this one for what OpenRLHF's logexp began",
    formula="log(1 + exp(w - b))",
    compute=log_exp,
)
