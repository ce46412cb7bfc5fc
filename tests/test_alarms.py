"""Alarms are said once, where they are seen; and not again by a run that goes on."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from plaudit.alarms import STUCK_AFTER, Alarms, draw_curves, find_chance_of_fall

Rows = list[dict[str, Any]]


def watch(rows: Rows, *, recalled: int = 0, num_evaluated: int = 1000, is_pairwise: bool = True) -> list[str]:
    said: list[str] = []
    alarms = Alarms(said.append, num_evaluated=num_evaluated, is_pairwise=is_pairwise)
    alarms.recall(rows[:recalled])
    for row in rows[recalled:]:
        alarms.on_log(None, SimpleNamespace(global_step=row["step"]), None, row)
    return said


def stuck(count: int, loss: float = math.log(2)) -> Rows:
    return [{"step": step, "loss": loss + 1e-4 * (step % 2), "accuracy": 0.5} for step in range(1, count + 1)]


def turning(evals: list[float], train: list[float]) -> Rows:
    rows: Rows = []
    for step, (held, own) in enumerate(zip(evals, train, strict=True), 1):
        rows.append({"step": step, "loss": 0.5, "accuracy": own})
        rows.append({"step": step, "eval_accuracy": held, "eval_loss": 0.6})
    return rows


def test_a_loss_that_stays_at_ln_2_is_said_once() -> None:
    said = watch(stuck(3 * STUCK_AFTER))
    assert len(said) == 1 and f"for {STUCK_AFTER} steps (at step {STUCK_AFTER})" in said[0]
    assert watch(stuck(STUCK_AFTER - 1)) == []
    assert watch(stuck(3 * STUCK_AFTER, loss=0.60)) == []
    assert watch(stuck(3 * STUCK_AFTER), is_pairwise=False) == []


def test_evaluation_that_falls_while_training_rises_is_said_with_its_figures() -> None:
    said = watch(turning([0.6, 0.72, 0.7, 0.6, 0.55], [0.6, 0.7, 0.8, 0.9, 0.95]))
    assert len(said) == 1
    for figure in ("from 0.720 (step 2) to 0.600 (step 4)", "from 0.700 to 0.900", "best checkpoint is kept"):
        assert figure in said[0]


def test_noise_and_a_rise_of_both_are_not_called_overfitting() -> None:
    assert watch(turning([0.7, 0.68], [0.6, 0.9]), num_evaluated=50) == []
    assert watch(turning([0.6, 0.7, 0.8], [0.6, 0.8, 0.9])) == []
    assert watch(turning([0.8, 0.6], [0.9, 0.7])) == [], "both fall: it comes apart, it does not overfit"


@pytest.mark.parametrize(("evals", "num", "count"), [([1.0, 0.5], 10, 0), ([1.0, 0.4], 10, 1), ([1.0, 0.0], 3, 0)])
def test_a_fall_on_few_comparisons_is_judged_by_an_exact_test(evals: list[float], num: int, count: int) -> None:
    """Ten right, then five: Fisher's p is 0.016; of four, 0.005. An accuracy of 1 on a few has no error of zero."""
    assert len(watch(turning(evals, [0.6, 0.9]), num_evaluated=num)) == count


def test_the_chance_of_a_fall_is_fishers() -> None:
    for before, after, num in ((1.0, 0.5, 10), (0.9, 0.85, 200), (0.5, 0.5, 7)):
        table = [[round(before * num), num - round(before * num)], [round(after * num), num - round(after * num)]]
        fisher = stats.fisher_exact(table, alternative="greater").pvalue
        assert find_chance_of_fall(before, after, num) == pytest.approx(fisher)


def test_many_evaluations_share_the_chance_of_a_false_alarm() -> None:
    """A fall that two evaluations make certain is what the best and the last of thirty can be apart by chance."""
    two, thirty = [0.75, 0.6], [*np.linspace(0.70, 0.73, 28), 0.75, 0.6]
    assert len(watch(turning(two, [0.6, 0.9]), num_evaluated=150)) == 1
    assert watch(turning(thirty, list(np.linspace(0.6, 0.9, 30))), num_evaluated=150) == []


def test_what_was_said_before_a_kill_is_not_said_again_and_counts_on() -> None:
    rows = stuck(2 * STUCK_AFTER)
    assert watch(rows, recalled=STUCK_AFTER + 1) == []
    assert len(watch(rows, recalled=STUCK_AFTER - 1)) == 1
    rows = turning([0.6, 0.72, 0.6], [0.6, 0.7, 0.9])
    assert len(watch(rows, recalled=4)) == 1
    assert len(watch([*rows[:1], {"step": 1, "loss": None, "accuracy": None}, *rows[1:]], recalled=5)) == 1


def test_curves_are_drawn(tmp_path: Path) -> None:
    rows = turning([0.6, 0.7], [0.6, 0.8])
    if draw_curves(rows, tmp_path / "curves.png"):
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    "name", ["x$_$y", "$", "a_b^{c}", "\\frac{1}{2}", "_hidden", "two\nlines", "\x1b[31mred", "z" * 500]
)
def test_curves_are_drawn_whatever_an_evaluation_set_is_called(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"step": n, "loss": 1.0 / n, f"eval_{name}_accuracy": 0.5, f"eval_{name}_loss": None} for n in (1, 2)]
    assert draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_drawing_that_fails_is_a_sentence_and_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    said: list[str] = []
    rows = [{"step": 1, "loss": "no number"}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": [1, 2]}]
    assert not draw_curves(rows, tmp_path / "curves.png", said.append)
    assert len(said) == 1
    assert "metrics.jsonl" in said[0]
    assert not (tmp_path / "curves.png").exists()
    assert not draw_curves([{"step": 1, "loss": 0.5}], tmp_path / "gone" / "curves.png", said.append)
    assert len(said) == 2
