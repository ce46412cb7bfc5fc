"""What is minimised: one loss a file, all of them pure functions of scores and targets.

Stands on `group`, `config` and torch (`token_wise` also on `tree` and `pack`), above `batches`. In reading order:

    settings       what a loss is told                       targets        of a Group: Items; of a pack: Targets
    pairwise       gaps, and labels that hold by half        loss           what is said of every loss
    bradley_terry  log_exp  hinge  scaled_bt                 ordinal        graded, with thresholds that learn
    plackett_luce  whole rankings                            token_wise     at every token that differs
    regression     ratings                                   table          all of them, and the one door
    attributes     ratings by attribute                      items          labels -> Items
    fitting        what a loss has to know of the data

The way of a label: `build_items` (a Group's labels, once), `join_items` (a pack's Groups), `compute_loss` (its scores;
a weighted sum). The sum over all packs of a step, divided by the sum of their `count`, is the step's loss. Invariant:
that number does not depend on the packs.
"""

from __future__ import annotations

from plaudit.config.schema import LossName
from plaudit.losses.fitting import fit_loss
from plaudit.losses.items import build_items, loss_of
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.regression import combine_scores
from plaudit.losses.settings import LossSettings
from plaudit.losses.table import LOSSES, compute_loss, loss_table
from plaudit.losses.targets import Items, Positions, Targets, join_items
from plaudit.losses.thresholds import OrdinalState
from plaudit.losses.token_wise import find_positions

__all__ = [
    "LOSSES",
    "Items",
    "Loss",
    "LossName",
    "LossSettings",
    "OrdinalState",
    "Positions",
    "Reads",
    "Targets",
    "build_items",
    "combine_scores",
    "compute_loss",
    "find_positions",
    "fit_loss",
    "join_items",
    "loss_of",
    "loss_table",
]
