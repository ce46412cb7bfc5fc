"""One table of scores and labels -> every figure of an evaluation's report, under the keys that stay.

Stands on `measure` alone, above `evaluate`. What `measure` works out one by one is asked for once here, and put
together flat, as docs/evaluate.md lists it. Invariant: a key is always there; what could not be measured is None.
"""

from __future__ import annotations

from typing import Any

from plaudit.errors import InputError
from plaudit.measure import (
    LengthFit,
    Table,
    correct_held_out,
    describe_scores,
    find_worst,
    fit_length,
    measure_accuracy,
    measure_baselines,
    measure_calibration,
    measure_length,
    measure_length_gaps,
    measure_ranking,
    measure_style,
    measure_subsets,
    sample_lengths,
    score_per_token,
)

UNCALIBRATED = (
    "ece", "ece_ci", "brier", "brier_ci", "log_loss", "log_loss_ci", "temperature", "temperature_ci", "ece_calibrated",
    "ece_calibrated_ci", "log_loss_calibrated", "reliability", "reliability_calibrated",
)  # fmt: skip
"""What calibration says, where there is one."""


def collect_figures(table: Table) -> dict[str, Any]:
    """Accuracy and what guessing gets, subsets, ranking, calibration, length, style, scores, mistakes."""
    baselines = measure_baselines(table)
    accuracy, subsets = measure_accuracy(table), measure_subsets(table, baselines=baselines)
    ranking, scores = measure_ranking(table), describe_scores(table)
    cautions = [accuracy.caution] if accuracy.caution else []
    return {
        **accuracy.as_json(),
        "baselines": baselines.as_json(),
        "alarms": list(baselines.alarms),
        "subsets": {name: one.as_json() for name, one in subsets.items()},
        "worst_subset": find_worst(subsets),
        "length_gaps": [gap.as_json() for gap in measure_length_gaps(table)],
        "ranking": ranking.as_json() if ranking is not None else None,
        **_collect_calibration(table),
        **_collect_length(table),
        "style": {name: one.as_json() for name, one in measure_style(table).items()},
        "scores": {
            **{name: getattr(scores, name) for name in ("n", "mean", "std", "min", "max")},
            "histogram": {"edges": scores.edges, "better": scores.better, "worse": scores.worse},
        },
        "mistakes": [mistake.as_json() for mistake in table.mistakes],
        "notes": [*cautions, *baselines.notes],
    }


def _collect_calibration(table: Table) -> dict[str, Any]:
    found = measure_calibration(table)
    said = found.as_json() if found is not None else {}
    return {name: said.get(name) for name in UNCALIBRATED}


def _collect_length(table: Table) -> dict[str, Any]:
    """How the score goes with length, what length is worth, and accuracy without that; by characters and by tokens."""
    found, by_tokens = measure_length(table), measure_length(table, unit="tokens")
    fit = find_length_fit(table)
    corrected = measure_accuracy(table, scores=correct_held_out(table)) if fit is not None else None
    spread = measure_accuracy(table, scores=score_per_token(table))
    return {
        "length_correlation": found.correlation,
        "length_correlation_ci": found.correlation_ci,
        "length_spearman": found.spearman,
        "length_spearman_ci": found.spearman_ci,
        "length_correlation_tokens": by_tokens.correlation,
        "length_correlation_tokens_ci": by_tokens.correlation_ci,
        "length_fit": fit.as_json() if fit is not None else None,
        "length_corrected": corrected.as_json() if corrected is not None else None,
        "per_token": spread.as_json() if spread.n else None,
        "lengths": {"sample": sample_lengths(table), "n": table.num_completions - table.num_unscored},
    }


def find_length_fit(table: Table) -> LengthFit | None:
    """What length is worth; None where there are too few answers to say."""
    try:
        return fit_length(table)
    except InputError:
        return None
