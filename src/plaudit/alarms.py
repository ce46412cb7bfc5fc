"""What a run says of itself while it goes: a loss that does not move, evaluation that turns, and curves in a file.

Stands above `train`; callbacks of the Trainer. Invariant: an alarm is said once, at the step where it is seen, with the
figures that it rests on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from plaudit.errors import MissingExtraError
from plaudit.files import AtomicFile
from plaudit.parts import Say, say_on_stderr

if TYPE_CHECKING:
    from plaudit.runs import RunFolder

LN2 = math.log(2)
STUCK_AFTER, STUCK_WITHIN = 30, 0.003
FALLS, ERRORS = 0.02, 2.0
"""How far below its best evaluation accuracy has to fall, while training accuracy rises, to be called overfitting: by
two points, and by two standard errors of a difference on as many comparisons."""


class Alarms(TrainerCallback):
    """Watches loss and accuracy."""

    def __init__(self, say: Say, *, num_evaluated: int, is_pairwise: bool) -> None:
        self.say, self.num_evaluated, self.is_pairwise = say, num_evaluated, is_pairwise
        self.raised: list[str] = []
        self._losses: list[float] = []
        self._train: list[float] = []
        self._evals: list[tuple[int, float, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A line of metrics."""
        logs = logs or {}
        if "loss" in logs and "accuracy" in logs:
            self._losses.append(float(logs["loss"]))
            self._train.append(float(logs["accuracy"]))
            self._look_at_losses(state.global_step)
        found = [v for k, v in logs.items() if k.startswith("eval_") and k.endswith("accuracy")]
        if found and self._train:
            recent = self._train[-max(1, len(self._train) // 8) :]
            self._evals.append((state.global_step, float(found[0]), sum(recent) / len(recent)))
            self._look_at_evals()

    def recall(self, rows: Iterable[dict[str, Any]]) -> None:
        """What a run that goes on has seen before; what was said then is not said again."""
        say, self.say = self.say, lambda sentence: None
        for row in rows:
            self.on_log(
                None, SimpleNamespace(global_step=row["step"]), None, {k: v for k, v in row.items() if v is not None}
            )
        self.say = say

    def _look_at_losses(self, step: int) -> None:
        last = self._losses[-STUCK_AFTER:]
        if self.is_pairwise and len(last) == STUCK_AFTER and all(abs(x - LN2) < STUCK_WITHIN for x in last):
            self._raise(
                "stuck",
                f"the loss has been ln 2 for {STUCK_AFTER} steps (at step {step}): the model gives both sides the same "
                "score; look at the learning rate, and whether answers reach the model (chat template, truncation)",
            )

    def _look_at_evals(self) -> None:
        step, accuracy, trained = self._evals[-1]
        best_step, best, trained_then = max(self._evals, key=lambda e: e[1])
        error = math.sqrt(2 * best * (1 - best) / max(1, self.num_evaluated))
        if best_step < step and accuracy < best - max(FALLS, ERRORS * error) and trained > trained_then:
            self._raise(
                "overfitting",
                f"evaluation accuracy fell from {best:.3f} (step {best_step}) to {accuracy:.3f} (step {step}) while "
                f"training accuracy rose from {trained_then:.3f} to {trained:.3f}: overfitting; the best checkpoint is "
                "kept, and is what is saved at the end",
            )

    def _raise(self, name: str, sentence: str) -> None:
        if name not in self.raised:
            self.raised.append(name)
            self.say(sentence)


class RunLog(TrainerCallback):
    """Every line of metrics into metrics.jsonl, and to whoever shows progress; on the first rank alone."""

    def __init__(self, run: RunFolder, show: Callable[[int, int, dict[str, Any]], None] | None = None) -> None:
        self.run, self.show = run, show

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A line of metrics."""
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return  # the Trainer's own summary counts steps where it says samples
        values = {k: v for k, v in logs.items() if isinstance(v, int | float | str) and k not in ("epoch", "step")}
        self.run.metrics.append(state.global_step, float(state.epoch or 0), values)
        if self.show is not None:
            self.show(state.global_step, state.max_steps, values)


def draw_curves(rows: list[dict[str, Any]], file: Path, say: Say = say_on_stderr) -> bool:
    """Loss, accuracy and rewards over steps as a PNG; False, and a sentence, where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        say(f"{file.name} is left out: {MissingExtraError('drawing curves', 'report')}")
        return False
    figure = Figure(figsize=(11, 3.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = (("loss",), ("accuracy",), ("chosen_reward", "rejected_reward"))
    for axis, names in zip(figure.subplots(1, 3), panels, strict=True):
        for name in names:
            for lead, style in (("", "-"), ("eval_", "o-")):
                keys = {
                    k
                    for row in rows
                    for k in row
                    if k == lead + name or (lead and k.startswith(lead) and k.endswith(name))
                }
                for key in sorted(keys):
                    points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
                    axis.plot(*zip(*points, strict=True), style, label=key, linewidth=1, markersize=3)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=7)
    with AtomicFile(file) as stream:
        figure.savefig(stream, format="png")
    return True
