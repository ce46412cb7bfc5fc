"""Where the numbers come from: the command, the model, the data, the versions, the training that made the model.

Part of `report`. Invariant: what the report says of itself is shown whole; nothing is looked up.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from plaudit.report.canvas import draw_key
from plaudit.report.charts import Curve, draw_curves
from plaudit.report.facts import Estimate, Facts
from plaudit.report.markup import Child, tag
from plaudit.report.pieces import Section, draw_figure, draw_pairs, draw_table, fold
from plaudit.report.scales import Unit
from plaudit.report.wording import NONE, say_count, say_date, say_name, say_number, say_seconds, say_things

MODEL = ("name", "folder", "base", "architecture", "dtype", "back_end", "device", "temperature")


def draw_provenance(facts: Facts) -> Section:
    """The command, the model and the data."""
    body = [tag("h3", "Command"), *_draw_command(facts)]
    models = [facts.part("model")] if facts.part("model") else facts.rows("models")
    for model in models:
        body += [tag("h3", "Model"), *_draw_model(model)]
    body += [tag("h3", "Data"), *_draw_data(facts)]
    versions = facts.part("versions")
    if versions:
        pairs = [(str(name), versions.text(name)) for name in sorted(versions.table)]
        body.append(fold("Versions", draw_pairs(pairs)))
    about = "What was run, on what, and how to do it again."
    return Section(name="provenance", title="Provenance", about=about, body=(*body,))


def _draw_command(facts: Facts) -> list[Child]:
    command = facts.texts("command")
    line = command[0] if len(command) == 1 else shlex.join(command)
    seconds = facts.part("seconds")
    total = facts.number("seconds")
    spent = [say_seconds(total)] if total is not None else []
    spent += [
        f"{say_name(key)} {say_seconds(value)}" for key in seconds.table if (value := seconds.number(key)) is not None
    ]
    seed = facts.number("seed")
    pairs = [
        ("made", say_date(facts.text("created"))),
        ("by", f"plaudit {facts.text('plaudit')}" if facts.text("plaudit") else ""),
        ("seed", say_count(seed) if seed is not None else ""),
        ("time", ", ".join(spent)),
    ]
    shown = tag("pre", line, class_="command") if line else tag("p", "The report does not say which command made it.")
    return [shown, draw_pairs(pairs)]


def _draw_model(model: Facts) -> list[Child]:
    if not model:
        return [tag("p", "The report does not say which model was measured.")]
    pairs = [(say_name(key), value) for key in MODEL if (value := _plain(model.table.get(key)))]
    trained = model.part("trained")
    # Sorted, so that a page is the same whatever the order in which a report was put together.
    whole = json.dumps(trained.table, indent=2, ensure_ascii=False, sort_keys=True, default=str)
    folded = fold("How it was trained (plaudit.json)", tag("pre", whole)) if trained else None
    return [draw_pairs(pairs), folded]


def _plain(value: Any) -> str:
    """A number or a text; empty for anything else."""
    if isinstance(value, int | float):
        return say_number(value, 3) if isinstance(value, float) else str(value)
    return value if isinstance(value, str) else ""


def _draw_data(facts: Facts) -> list[Child]:
    rows = [
        (
            tag("span", data.text("name", "path") or "–", [tag("small", tag("code", line)) for line in _trace(data)]),
            data.text("format") or "–",
            say_count(data.number("groups")),
            say_count(data.number("completions")),
        )
        for data in facts.rows("data")
    ]
    if not rows:
        return [tag("p", "The report does not say on what data it was made.")]
    told = [k for k in range(4) if any(row[k] != NONE for row in rows)]
    names = ("Data", "Format", "Prompts", "Answers")
    return [draw_table([names[k] for k in told], [[row[k] for k in told] for row in rows])]


def _trace(data: Facts) -> list[str]:
    """Where a file lies and what tells it from any other."""
    digest = data.text("sha256")
    return [line for line in (data.text("path"), f"sha256:{digest}" if len(digest) == 64 else digest) if line]


def draw_training(facts: Facts) -> Section | None:
    """Loss and accuracy over the steps of training."""
    rows = facts.part("training").rows("curve")
    drawn = (_draw_over_steps(rows, "loss", "Loss", "number"), _draw_over_steps(rows, "accuracy", "Accuracy", "share"))
    figures = [figure for figure in drawn if figure is not None]
    if not figures:
        return None
    about = (
        "Training falls and rises with the few comparisons of each step; evaluation is on the same held-out data "
        "every time. Where the two part for good, the model learns its training data by heart."
    )
    return Section(name="training", title="Training", about=about, body=(tag("div", figures, class_="pair"),))


def _draw_over_steps(rows: list[Facts], name: str, title: str, unit: Unit) -> Child:
    train = _read_line(rows, [name])
    keys = sorted({key for row in rows for key in row.table if key.startswith("eval_") and key.endswith(name)})
    held = _read_line(rows, keys)
    curves = [
        curve
        for curve in (
            Curve(words="training", points=train, css="train"),
            Curve(words="evaluation", points=held, css="better", shape="circle"),
        )
        if len(curve.points) > 1
    ]
    if not curves:
        return None
    legend = [
        draw_key(c.words, f"line {c.css}") if not c.shape else draw_key(c.words, c.css, shape=c.shape) for c in curves
    ]
    titles = (f"{title} over {say_things(rows[-1].number('step'), 'step')}", "step", title.lower())
    return draw_figure(draw_curves(f"{name}-plot", curves, titles=titles, unit=unit), legend=legend)


def _read_line(rows: list[Facts], keys: list[str]) -> tuple[tuple[float, Estimate], ...]:
    found = ((row.number("step"), row.number(*keys)) for row in rows)
    return tuple((step, Estimate(value=value)) for step, value in found if step is not None and value is not None)
