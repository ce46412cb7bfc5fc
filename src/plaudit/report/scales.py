"""From values to places on an axis, with ticks at round numbers.

Part of `report`. A place is a share of the axis, 0 at its start and 1 at its end; charts turn it into percent of their
width, so that a chart fits any page and its words stay of one size. Invariant: every value given to `build_scale` has a
place from 0 to 1, and every tick is a round number on the axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from plaudit.report.wording import MINUS

Unit = Literal["number", "share", "points"]
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """An axis: its ends, its ticks, and in what its values are said."""

    low: float
    high: float
    ticks: tuple[float, ...]
    unit: Unit = "number"
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1; what is beyond an end lies at it."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        at = (math.log(max(value, self.low)) if self.is_log else value) - low
        return min(1.0, max(0.0, at / (high - low)))

    def label(self, tick: float) -> str:
        """A tick in as many digits as all of them need."""
        factor = 1 if self.unit == "number" else 100
        ticks = [factor * t for t in self.ticks]
        # On a logarithmic axis each tick has the digits that it needs itself; on an even one all have the same.
        places = _places([factor * tick]) if self.is_log else _places(ticks)
        sign = "+" if self.unit == "points" and tick > 0 else ""
        text = f"{sign}{factor * tick:,.{places}f}".replace("-", MINUS)
        return text + ("%" if self.unit == "share" else "")


def build_scale(
    values: Iterable[float], *, unit: Unit = "number", include: Iterable[float] = (), num_ticks: int = 5
) -> Scale:
    """An even axis over these values, from round number to round number; shares stay within 0 and 1."""
    every = [*values, *include]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    if high - low < 1e-9 * max(1.0, abs(low)):
        margin = 0.05 if unit != "number" else max(0.5, abs(low) / 10)
        low, high = low - margin, high + margin
    if unit == "share":
        low, high = max(0.0, low), min(1.0, high)
    step = _round_step((high - low) / num_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(_rounded(n * step) for n in range(first, last + 1))
    if unit == "share":
        ticks = tuple(t for t in ticks if -1e-9 <= t <= 1 + 1e-9)
        return Scale(low=max(0.0, _rounded(first * step)), high=min(1.0, _rounded(last * step)), ticks=ticks, unit=unit)
    return Scale(low=ticks[0], high=ticks[-1], ticks=ticks, unit=unit)


def build_log_scale(values: Iterable[float], *, base: int = 10, most_ticks: int = 6) -> Scale:
    """A logarithmic axis over values above 0; its ticks are powers of 2, or 1, 2 and 5 times powers of 10."""
    above = [value for value in values if value > 0]
    low, high = (min(above), max(above)) if above else (1.0, 10.0)
    if high <= low * 1.01:
        low, high = low / 2, high * 2
    ladders = ((1, 2, 5), (1, 3), (1,)) if base == 10 else ((1,),)
    for rungs in ladders:
        start, end = math.floor(math.log(low, base)) - 1, math.ceil(math.log(high, base)) + 1
        ticks = [_rounded(rung * float(base) ** power) for power in range(start, end + 1) for rung in rungs]
        inside = [t for t in ticks if low * 0.999 <= t <= high * 1.001]
        if len(inside) <= most_ticks:
            break
    thin = max(1, -(-len(inside) // most_ticks))
    # Between two neighbours on the ladder there is no round number: then even ticks are rounder than none.
    ticks_shown = tuple(inside[::thin]) if len(inside) > 1 else ticks_inside(low, high)
    return Scale(low=low, high=high, ticks=ticks_shown, is_log=True)


def ticks_inside(low: float, high: float) -> tuple[float, ...]:
    """Round ticks between two ends that need not be round."""
    return tuple(t for t in build_scale([low, high]).ticks if low <= t <= high)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(rung * power for rung in _STEPS if rung * power >= step * (1 - 1e-9))


def _rounded(value: float) -> float:
    """Without the dust of binary fractions: 0.30000000000000004 is 0.3."""
    return float(f"{value:.12g}")


def _places(values: Iterable[float]) -> int:
    every = list(values)
    return next((p for p in range(6) if all(abs(round(v, p) - v) <= 1e-9 * max(1, abs(v)) for v in every)), 6)
