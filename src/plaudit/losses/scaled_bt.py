"""Bradley and Terry's model with comparisons weighed by how much better the better one is.

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


def scaled_bt(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """strength * -log σ(better - worse), summed with weights.

    Needs: labels as comparisons of two, with margins: |margin| is the strength; that of two ratings is their
    difference. It is divided by its mean over the training data (`fit_loss`), so that the loss keeps the size of
    `bradley_terry`'s and rates carry over. Without a margin, and for a tie, it is 1; a margin of zero teaches nothing.
    For: any number of completions.
    Prefer `ordinal` if the strengths are a few grades ("slightly", "much") whose distances nobody knows;
    `bradley_terry` if there are no margins.

    >>> from plaudit import pair
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> settings = LossSettings(name=LossName.SCALED_BT)
    >>> round(loss_of(pair("Capital of Peru?", "Lima", "Cusco", margin=3.0), [2.0, 0.5], settings), 4)
    0.6042
    """
    gap_C = read_gap(score_L, targets)
    loss_C = take_both_sides(-logsigmoid(gap_C), -logsigmoid(-gap_C), targets.is_tie_C, settings)
    return weigh(targets.strength_C * loss_C, targets)


LOSS = Loss(
    name=LossName.SCALED_BT,
    reads=Reads.COMPARISONS,
    labels="comparisons with margins, or ratings",
    completions="2 or more",
    prefer="`ordinal` if strengths are a few grades; `bradley_terry` if labels have no margins",
    formula="strength · -log σ(b - w), strength = |margin| / its mean",
    compute=scaled_bt,
    takes_margins=True,
)
