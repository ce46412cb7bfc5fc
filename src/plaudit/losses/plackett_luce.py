"""The likelihood of a whole ranking: the best is chosen among all, the next among those that are left, and so on.

Part of `losses`. Invariant: adding a constant to all scores of a Group changes nothing, and tied completions may change
places. Letters: R rankings, K places of a ranking, L scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.config.schema import LossName
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import TIE_SHARE, widen
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets


def plackett_luce(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """log Σ exp(those left) - chosen, for every choice of a ranking, summed with weights.

    Needs: rankings, or ratings (read as a ranking, best first); a preference is a ranking of two, and of those the loss
    is `bradley_terry`'s. A choice is the item: a ranking of K counts as K-1 in a mean over comparisons.
    Ties: each of the tied is chosen half the time before its fellows and half the time after them. For two that is the
    mean over both orders; for more it stays symmetric and smallest where their scores are equal. With `ties="drop"` the
    tied are chosen one by one against those below them, and not compared with each other.
    For: two or more completions, as many as were ranked.
    Prefer `bradley_terry` for pairs and for labels that contradict each other; this one learns from a ranking as a
    whole, and its K-1 choices are nearer to K-1 facts than K(K-1)/2 comparisons are.

    >>> from plaudit import Completion, Group, Ranking
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> answers = tuple(Completion(content=text) for text in ("Lima", "Cusco", "Quito"))
    >>> group = Group(prompt="Capital of Peru?", completions=answers, labels=(Ranking(order=(0, 1, 2)),))
    >>> round(loss_of(group, [2.0, 1.0, 0.0], LossSettings(name=LossName.PLACKETT_LUCE)), 4)
    0.3604
    """
    score_RK = widen(score_L)[targets.order_RK.clamp(min=0)]
    is_there_RK = targets.order_RK >= 0
    # A place that is padding is left with itself alone: log exp(s) - s is exactly nothing, in slope as well.
    itself_KK = torch.eye(score_RK.shape[1], dtype=torch.bool, device=score_RK.device)
    both_RKK = is_there_RK[:, :, None] & is_there_RK[:, None, :]
    tier_RK = targets.tier_RK
    below_RKK = both_RKK & (tier_RK[:, None, :] > tier_RK[:, :, None])
    after_RK = _log_sum(score_RK, below_RKK | itself_KK)
    if settings.ties == "half":
        level_RKK = both_RKK & (tier_RK[:, None, :] >= tier_RK[:, :, None])
        before_RK = _log_sum(score_RK, level_RKK | itself_KK)
        after_RK = TIE_SHARE * before_RK + (1 - TIE_SHARE) * after_RK
    return (targets.order_weight_R * (after_RK - score_RK).sum(-1)).sum()


def _log_sum(score_RK: Tensor, mask_RKK: Tensor) -> Tensor:
    """log Σ exp over those that the mask leaves at each place."""
    return score_RK[:, None, :].masked_fill(~mask_RKK, -torch.inf).logsumexp(-1)


LOSS = Loss(
    name=LossName.PLACKETT_LUCE,
    reads=Reads.ORDERS,
    labels="rankings, or ratings",
    completions="2 or more",
    prefer="`bradley_terry` for pairs, and where labels contradict each other",
    formula="mean over choices of log Σ exp(those left) - chosen",
    compute=plackett_luce,
)
