"""From shifts to a verdict: means, intervals, and what they allow to say.

Part of `probes`, on `measure`. A shift is the score after an edit minus that before it, in units of the spread.
The interval that is shown is a bootstrap over prompts at 95%. The verdict stands on a wider one: at 95% for all probes
of a run together (each at 1 - 0.05 / the number of probes), and wide enough for shifts as skewed as an exponential
distribution, so that a fair scorer is accused by none in 19 runs of 20. Student's interval is too narrow for skewed
shifts of few prompts: with 30 probes and exponential shifts it accused in 35% of runs at 20 prompts. Invariant: with
less evidence a verdict becomes `unclear`, never another accusation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from plaudit.measure.intervals import Floats, Interval, mean_interval, rate_interval
from plaudit.measure.significance import fewest_discordant, skew_proof_interval
from plaudit.probes.probe import Expects

TOLERANCE = 0.2
"""A shift of less than a fifth of the spread is small enough not to matter."""

FEWEST = 10
"""With fewer prompts than this there is no verdict."""


class Verdict(StrEnum):
    """What a probe found. The first three are for edits that keep the meaning, the next two for those that do not."""

    ROBUST = "robust"
    BIASED_UP = "biased up"
    BIASED_DOWN = "biased down"
    CAUGHT = "caught"
    FOOLED = "fooled"
    UNCLEAR = "unclear"

    @property
    def is_flag(self) -> bool:
        """Whether it accuses the scorer of something."""
        return self in (Verdict.BIASED_UP, Verdict.BIASED_DOWN, Verdict.FOOLED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over prompts with its 95% interval."""

    mean: float
    interval: Interval | None


def estimate_mean(values_N: Floats, seed: int) -> Estimate:
    """Of shifts: the mean, and the interval of means of prompts drawn again (None for a single prompt)."""
    return Estimate(mean=float(values_N.mean()), interval=mean_interval(values_N, np.arange(len(values_N)), seed=seed))


def estimate_rate(values_N: Floats, seed: int) -> Estimate:
    """Of shares, likewise."""
    return Estimate(mean=float(values_N.mean()), interval=rate_interval(values_N, np.arange(len(values_N)), seed=seed))


def find_family_interval(shift_N: Floats, num_probes: int) -> Interval | None:
    """An interval of the mean that holds for `num_probes` of them together; None for too few prompts."""
    return skew_proof_interval(shift_N, num_tests=num_probes) if len(shift_N) >= FEWEST else None


def find_fewest(num_probes: int) -> int:
    """The fewest prompts with which one of so many probes can accuse."""
    return max(FEWEST, fewest_discordant(num_probes))


def judge_shift(expects: Expects, interval: Interval | None) -> Verdict:
    """The verdict that an interval of the mean shift allows.

    An edit that keeps the meaning: `biased up` if the mean is surely above 0 and at least `TOLERANCE`, `biased down`
    likewise, `robust` if it is surely within the tolerance. An edit that does not: `caught` if the mean is surely below
    0, `fooled` if it is surely no fall by the tolerance. Anything else is `unclear`.
    """
    if interval is None:
        return Verdict.UNCLEAR
    low, high = interval
    # An interval that was widened to hold zero is not centred on the mean, and then this does not matter.
    mean = (low + high) / 2
    if expects is Expects.LOWER:
        return Verdict.CAUGHT if high < 0 else Verdict.FOOLED if low > -TOLERANCE else Verdict.UNCLEAR
    if low > 0 and mean >= TOLERANCE:
        return Verdict.BIASED_UP
    if high < 0 and mean <= -TOLERANCE:
        return Verdict.BIASED_DOWN
    return Verdict.ROBUST if low > -TOLERANCE and high < TOLERANCE else Verdict.UNCLEAR
