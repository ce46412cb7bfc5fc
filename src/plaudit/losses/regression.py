"""Scores that say ratings: squared error against standardised ratings, one score or one an attribute.

Part of `losses`. Invariant: scores are in units of the ratings' spread around their mean, so a bias-free head can say
them. Letters: N ratings, L leaves, A attributes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.config.schema import LossName
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import widen
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Targets


def regression(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """(score - (rating - mean) / spread)², summed with weights.

    Needs: ratings. Mean and spread are those of the training data (`fit_loss`), one pair an attribute. Every rating is
    an item of its own, so several annotators of one completion pull its score to their weighted mean.
    With `attributes` a completion has one score each, `score_L` is (leaves, attributes), and an attribute's ratings are
    the labels by its name (`helpfulness`, or `ann3/helpfulness`), else the numbers of that name in
    `meta["completions"]`. `combine_scores` weighs them into the one score that is reported.
    For: any number of completions, also one.
    Prefer `plackett_luce` if only the order of ratings can be trusted, or if raters use the scale differently.

    >>> from plaudit import Completion, Group, Ratings
    >>> from plaudit.losses import LossName, LossSettings, loss_of
    >>> answers = tuple(Completion(content=text) for text in ("Lima", "Cusco"))
    >>> group = Group(prompt="Capital of Peru?", completions=answers, labels=(Ratings(ratings=(5.0, 2.0)),))
    >>> loss_of(group, [1.0, 0.0], LossSettings(name=LossName.REGRESSION, means=(3.0,), spreads=(1.0,)))
    1.0
    """
    score_LA = widen(score_L if score_L.dim() == 2 else score_L[:, None])
    scale_A = [torch.tensor(values, device=score_LA.device) for values in _scales(settings)]
    mean_N, spread_N = (values[targets.attribute_N] for values in scale_A)
    error_N = score_LA[targets.rated_N, targets.attribute_N] - (targets.rating_N - mean_N) / spread_N
    return (targets.rating_weight_N * error_N.square()).sum()


def _scales(settings: LossSettings) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of each attribute; before they are known, ratings are taken as they are."""
    num_scores = settings.num_scores
    return settings.means or (0.0,) * num_scores, settings.spreads or (1.0,) * num_scores


def combine_scores(score_LA: Tensor, settings: LossSettings) -> Tensor:
    """The one score of a completion: its scores weighed by `attribute_weights`, or their mean.

    The same weights over the rows of a head make the head of the one score.

    >>> named = {"attributes": ("clarity", "truth"), "attribute_weights": (0.25, 1.0)}
    >>> settings = LossSettings(name=LossName.REGRESSION, **named)
    >>> combine_scores(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), settings).tolist()
    [1.5, 3.0]
    """
    if score_LA.dim() == 1:
        return score_LA
    weight_A = torch.tensor(settings.score_weights(), dtype=score_LA.dtype, device=score_LA.device)
    return score_LA @ weight_A


LOSS = Loss(
    name=LossName.REGRESSION,
    reads=Reads.RATINGS,
    labels="ratings, of one kind or of several attributes",
    completions="any",
    prefer="`plackett_luce` if only the order of ratings can be trusted",
    formula="(s - (rating - mean) / spread)²",
    compute=regression,
)
