"""Over-optimisation: how gold first rises and then falls with the distance from the policy, and which n to stop at.

Beside `estimates`; numpy only. Gao et al. (2022): for best-of-n the gain in gold is d (a - b d), d the square root of
the KL. Invariant: a recommended n is one that was measured, and beyond the sample the law only says where it points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plaudit.measure.intervals import Floats, Interval, percentile_interval
from plaudit.measure.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Law(Record):
    """gain(d) = d (a - b d), with intervals; its top is at n = `peak_n`, None where it does not turn down."""

    a: float
    b: float
    a_ci: Interval | None
    b_ci: Interval | None
    r2: float
    peak_n: float | None


def fit_law(kl_N: Floats, gain_BN: Floats, num_prompts: int) -> Law:
    """The law through gains at each n; the first row of `gain` is the measured one, the others are replicates."""
    d_N = np.sqrt(kl_N)
    basis_N2 = np.stack([d_N, -(d_N**2)], axis=1)
    found_B2 = gain_BN @ np.linalg.pinv(basis_N2).T
    a, b = (float(v) for v in found_B2[0])
    rest = float(((gain_BN[0] - basis_N2 @ found_B2[0]) ** 2).sum())
    whole = float(((gain_BN[0] - gain_BN[0].mean()) ** 2).sum())
    return Law(
        a=a,
        b=b,
        a_ci=percentile_interval(found_B2[1:, 0], num_prompts),
        b_ci=percentile_interval(found_B2[1:, 1], num_prompts),
        r2=1 - rest / whole if whole > 0 else 1.0,
        peak_n=_invert_bound((a / (2 * b)) ** 2) if a > 0 and b > 0 else None,
    )


def _invert_bound(kl: float) -> float | None:
    """The n whose bound log n - (n - 1) / n is `kl`; None beyond a million."""
    low, high = 0.0, math.log(1e6)
    if high - 1 + math.exp(-high) < kl:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle - 1 + math.exp(-middle) < kl else (low, middle)
    return math.exp(low)


def recommend_n(grid: list[int], is_behind: Callable[[int], bool]) -> int:
    """The smallest n that is not surely behind the last of the grid, the best: more samples bought nothing sure."""
    return next((n for at, n in enumerate(grid[:-1]) if not is_behind(at)), grid[-1])
