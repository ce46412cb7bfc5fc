"""What is said of every loss: the labels it needs, the sibling to prefer, its formula, and its function.

Part of `losses`; each loss file ends with one `Loss`, and `table` collects them. Invariant: the function is pure: it
returns the weighted sum over a pack's items, in fp32 or wider, and neither counts, gathers nor logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from plaudit.config.schema import LossName


class Reads(StrEnum):
    """Which part of the targets a loss is a sum over."""

    COMPARISONS = "comparisons"
    ORDERS = "orders"
    RATINGS = "ratings"
    TOKENS = "tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """One loss. `margin` is what stands for the margin of a label that has none."""

    name: LossName
    reads: Reads
    labels: str
    completions: str
    prefer: str
    formula: str
    compute: Callable[..., Tensor]
    margin: float = 0.0
    takes_margins: bool = False
