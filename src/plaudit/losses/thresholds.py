"""The thresholds that `ordinal` learns: by how much two scores must differ to be called a little, or much, better.

Part of `losses`. They are a handful of numbers, and scores move faster than thresholds of the model's rate would, so
they have an optimizer of their own. Invariant: they ascend from zero or above, whatever is learned; and a state that
was saved goes on bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from plaudit.config.schema import LossName
from plaudit.errors import ConfigError, ModelError
from plaudit.losses.settings import LossSettings

NARROWEST = 0.01
"""The least distance of two thresholds: a grade of no width has no probability."""

MOST_BELOW = 0.98
"""The largest share of labels that a threshold begins above; all of them would put it at infinity."""

LEARNING_RATE = 0.02
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def first_thresholds(settings: LossSettings) -> Tensor:
    """Thresholds at which scores that say nothing yet give each grade the share that it has in the data."""
    shares = settings.grade_shares or (1.0,) * (settings.num_grades + 1)
    if len(shares) != settings.num_grades + 1:
        raise ConfigError(
            f"{len(shares)} grade_shares came with {len(settings.cuts)} cuts; one for the tie and one for each of "
            f"{settings.num_grades} grades were needed"
        )
    tie = shares[0] if settings.ties == "half" else 0.0
    total = sum(shares[1:]) + tie
    found: list[float] = []
    below = tie
    for share in shares[1:]:
        # With equal scores half of what is above a threshold is above it on either side.
        part = min(below / total, MOST_BELOW)
        edge = math.log1p(part) - math.log1p(-part)
        least = found[-1] + NARROWEST if found else NARROWEST if settings.ties == "half" else 0.0
        found.append(max(edge, least))
        below += share
    return torch.tensor(found)


class OrdinalState:
    """Thresholds of a run, with their optimizer. One rank's gradient is its share of the step's, as the model's is.

    A step: the loss's backward leaves a gradient on `parameters()`, ranks add theirs up, `step()` moves them.
    """

    def __init__(
        self, settings: LossSettings, *, device: torch.device | str = "cpu", learning_rate: float = LEARNING_RATE
    ) -> None:
        if settings.name is not LossName.ORDINAL:
            raise ConfigError(f"thresholds were asked for with loss.name {settings.name}; only ordinal learns them")
        self.has_ties = settings.ties == "half"
        first = first_thresholds(settings).tolist()
        widths = [b - a for a, b in pairwise([0.0, *first])]
        raw = [_unfold(max(width, 2 * NARROWEST) - NARROWEST) for width in widths]
        self.raw_G = torch.tensor(raw, device=device).requires_grad_()
        self.optimizer = torch.optim.Adam([self.raw_G], lr=learning_rate, foreach=False)

    def thresholds(self) -> Tensor:
        """Ascending: from a tie to the first grade, from there to the next. Without ties the first is zero."""
        width_G = softplus(self.raw_G) + NARROWEST
        if not self.has_ties:
            width_G = torch.cat([width_G.new_zeros(1), width_G[1:]])
        return width_G.cumsum(0)

    def parameters(self) -> list[Tensor]:
        """The one leaf that learns."""
        return [self.raw_G]

    def step(self) -> None:
        """Move by the gradient that is there, if there is one, and forget it."""
        self.optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Forget the gradient: a step that is skipped moves nothing."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as tensors that safetensors holds."""
        moments = self.optimizer.state.get(self.raw_G, {})
        state = {name: moments[name].detach().clone() for name in MOMENTS if name in moments}
        return {"raw": self.raw_G.detach().clone(), **state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where a `state_dict` was taken; ModelError if it is of another number of grades."""
        raw = state.get("raw")
        if raw is None or raw.shape != self.raw_G.shape:
            came = "no thresholds" if raw is None else f"{len(raw)} thresholds"
            raise ModelError(
                f"{came} came from the checkpoint, and the data has {len(self.raw_G)} grades; "
                "resume with the data that the run began with, or begin a new run"
            )
        with torch.no_grad():
            self.raw_G.copy_(raw)
        moments = {name: state[name].clone() for name in MOMENTS if name in state}
        # The count of steps stays on the CPU, as the optimizer itself keeps it.
        moved = {name: x if name == "step" else x.to(self.raw_G.device) for name, x in moments.items()}
        self.optimizer.state.clear()
        if moved:
            self.optimizer.state[self.raw_G] = moved

    def card(self) -> dict[str, Any]:
        """The thresholds as plain data, for a checkpoint's card."""
        return {"thresholds": [round(x, 6) for x in self.thresholds().tolist()]}


def _unfold(y: float) -> float:
    """The x whose softplus is y."""
    return y + math.log(-math.expm1(-y))
