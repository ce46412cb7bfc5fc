"""The log-likelihood of comparisons under Bradley and Terry's model: the loss to begin with.

Part of `losses`. Invariant: adding a constant to all scores of a Group changes nothing.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from plaudit.config.schema import LossName
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import read_gap, take_both_sides, weigh
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets


def bradley_terry(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """-log σ(better - worse - margin), summed with weights.

    Needs: labels of any kind, as comparisons of two (a preference, every two of a ranking, of ratings, of a tie). A tie
    is half a win each way. The margin is that of the label, 0 where it has none; differences of ratings are no margins
    here, since their scale is not that of scores.
    For: any number of completions; of K ranked ones all K(K-1)/2 comparisons count.
    Prefer `scaled_bt` if labels say how much better, `plackett_luce` if they are whole rankings.

    >>> from plaudit import pair
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> settings = LossSettings(name=LossName.BRADLEY_TERRY)
    >>> group = pair("Capital of Peru?", "Lima", "Cusco")
    >>> round(loss_of(group, [2.0, 0.5], settings), 4)
    0.2014
    >>> round(loss_of(group, [0.5, 2.0], settings), 4)
    1.7014
    """
    gap_C = read_gap(score_L, targets)
    loss_C = take_both_sides(
        -logsigmoid(gap_C - targets.margin_C), -logsigmoid(-gap_C - targets.margin_C), targets.is_tie_C, settings
    )
    return weigh(loss_C, targets)


LOSS = Loss(
    name=LossName.BRADLEY_TERRY,
    reads=Reads.COMPARISONS,
    labels="comparisons; margins if there are any",
    completions="2 or more",
    prefer="`scaled_bt` if labels say how much better; `plackett_luce` for whole rankings",
    formula="-log σ(b - w - margin)",
    compute=bradley_terry,
    takes_margins=True,
)
