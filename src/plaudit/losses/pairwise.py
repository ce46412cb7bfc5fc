"""What the losses of comparisons have in common: the gap between two scores, and labels that hold only by half.

Part of `losses`. A tie is half a win each way, and label smoothing holds every label for wrong with a small
probability: both are one number, the share of the other side. Invariant: a loss that goes through here treats a tie the
same whichever of the two is called better. Letters: C comparisons, L scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets

TIE_SHARE = 0.5


def widen(score_L: Tensor) -> Tensor:
    """Scores in fp32, or wider if they are: a loss in bf16 would step in eighths."""
    return score_L if score_L.dtype == torch.float64 else score_L.float()


def read_gap(score_L: Tensor, targets: Targets) -> Tensor:
    """By how much the better score is above the worse one."""
    score_L = widen(score_L)
    return score_L[targets.better_C] - score_L[targets.worse_C]


def take_both_sides(as_told: Tensor, turned: Tensor, is_tie: Tensor, settings: LossSettings) -> Tensor:
    """The loss where the label holds, and where it is turned round, each by its share."""
    other = torch.where(is_tie, TIE_SHARE, settings.label_smoothing).to(as_told.dtype)
    return (1 - other) * as_told + other * turned


def weigh(loss_C: Tensor, targets: Targets) -> Tensor:
    """The weighted sum over comparisons."""
    return (targets.weight_C * loss_C).sum()
