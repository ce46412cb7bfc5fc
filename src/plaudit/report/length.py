"""Length and style: whether the model likes how an answer looks.

Part of `report`. Invariant: a correlation is within prompts, and is shown with its interval.
"""

from __future__ import annotations

from markupsafe import Markup

from plaudit.report.canvas import Point, draw_key
from plaudit.report.charts import draw_scatter
from plaudit.report.facts import Facts
from plaudit.report.markup import Child, tag
from plaudit.report.pieces import Section, draw_figure, paragraphs
from plaudit.report.strips import Row, Strips, draw_strips
from plaudit.report.wording import say_count, say_estimate, say_name, say_things

FEWEST_POINTS = 10


def draw_length(facts: Facts) -> Section | None:
    """Score against length, the style correlations, and accuracy with length taken out."""
    body = [*_draw_scatter(facts), *_draw_correlations(facts)]
    corrected, accuracy = facts.part("length_corrected").estimate("accuracy"), facts.estimate("accuracy")
    if corrected is not None:
        body.append(
            paragraphs(
                f"With what length is worth taken out of each score, accuracy is {say_estimate(corrected)}; with raw "
                f"scores it is {say_estimate(accuracy)}."
            )
        )
    spread = facts.part("per_token").estimate("accuracy")
    if spread is not None:
        body.append(paragraphs(f"With scores divided by the number of tokens, accuracy is {say_estimate(spread)}."))
    if not body:
        return None
    about = (
        "Whether longer or more decorated answers get higher scores, among answers to one prompt. Some of it can be "
        "deserved; what a policy trained on these scores would learn first is this slope."
    )
    return Section(name="length", title="Length and style", about=about, body=(*body,))


def _draw_scatter(facts: Facts) -> list[Child]:
    points = facts.part("lengths").points("sample")
    if len(points) < FEWEST_POINTS or len({x for x, _ in points}) < 2:
        return []
    curve = read_curve(facts.part("length_fit"))
    keys = [
        draw_key("one answer", "dots", shape="circle"),
        draw_key("local regression" if curve else "mean of equal parts", "line trend"),
    ]
    answers = facts.part("lengths").number("n") or facts.number("completions")
    drawn = (
        f"{say_things(len(points), 'answer')} drawn by lot"
        if len(points) >= 2000
        else say_things(len(points), "answer")
    )
    drawn += f" of {say_count(answers)}." if answers and answers > len(points) else "."
    return [draw_figure(draw_scatter(points, curve), legend=keys), tag("p", drawn, class_="fine")]


def read_curve(fit: Facts) -> list[Point]:
    """The fitted curve of score over length."""
    lengths, scores = fit.numbers("lengths"), fit.numbers("scores")
    return list(zip(lengths, scores, strict=True)) if len(lengths) == len(scores) > 1 else []


def _draw_correlations(facts: Facts) -> list[Markup]:
    lengths = (("length", "correlation"), ("length, by rank", "spearman"), ("tokens", "correlation_tokens"))
    named = [(words, facts.estimate(f"length_{key}")) for words, key in lengths]
    named += [(say_name(name), part.estimate("correlation")) for name, part in facts.part("style").nested()]
    rows = [Row(name=name, count="", words=say_estimate(e, places=2), estimate=e) for name, e in named if e is not None]
    if not rows:
        return []
    strips = Strips(
        caption="Correlation of score with style within prompts, with 95% intervals",
        columns=("Score with", "", "Correlation"),
        rows=rows,
        unit="number",
        include=(-0.2, 0.2),
        line=0.0,
    )
    return [draw_strips(strips)]
