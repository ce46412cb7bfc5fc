"""The charts with two axes: score histogram, reliability, length scatter, and curves over steps or over n.

Part of `report`; stands on `canvas`. Numbers in, a `Chart` out; what a chart says is left to the page around it.
Invariant: each chart says in its description what its picture says, in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from plaudit.report.canvas import Chart, Frame, Point, draw_area, draw_dots, draw_line, draw_mark, percent
from plaudit.report.facts import Estimate
from plaudit.report.markup import tag
from plaudit.report.scales import Scale, Unit, build_log_scale, build_scale, ticks_inside
from plaudit.report.wording import say_count, say_estimate, say_number, say_share

MOST_MARKS = 16
"""Points of a curve that are marked one by one; of more, the line is enough."""
NUM_TREND_BINS = 12
"""Equal parts of the answers by length whose mean scores make the trend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line over steps or over n, with its band where there is one; `css` names its colour and stroke."""

    words: str
    points: tuple[tuple[float, Estimate], ...]
    css: str
    shape: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """A bin of a reliability diagram."""

    predicted: float
    observed: Estimate
    n: float | None = None


def draw_histogram(edges: Sequence[float], better: Sequence[float], worse: Sequence[float]) -> Chart:
    """Scores of the preferred and of the other answers on one axis, each as shares of its own number."""
    shares = [[n / (sum(counts) or 1) for n in counts] for counts in (better, worse)]
    x = Scale(low=edges[0], high=edges[-1], ticks=ticks_inside(edges[0], edges[-1]))
    y = build_scale([s for row in shares for s in row], unit="share", include=[0.0])
    frame = Frame(x=x, y=y, x_title="score", y_title="share of answers")
    layers: list[Markup] = []
    for row, name in zip(shares, ("better", "worse"), strict=True):
        bars = [
            tag(
                "rect",
                x=frame.across(low),
                width=percent(frame.x.place(high) - frame.x.place(low)),
                y=frame.down(share),
                height=round(frame.down(0) - frame.down(share), 2),
            )
            for (low, high), share in zip(pairwise(edges), row, strict=True)
            if share > 0
        ]
        steps = [(x, share) for (low, high), share in zip(pairwise(edges), row, strict=True) for x in (low, high)]
        outline = [(edges[0], 0.0), *steps, (edges[-1], 0.0)]
        layers += [tag("g", bars, class_=f"fill {name}"), draw_line(frame, outline, f"line {name}")]
    about = (
        f"Histogram of {say_count(sum(better))} scores of preferred and {say_count(sum(worse))} of other answers, "
        f"from {say_number(edges[0])} to {say_number(edges[-1])}."
    )
    return Chart(
        name="scores-plot", title="Scores of preferred and other answers", about=about, frame=frame, layers=(*layers,)
    )


def draw_reliability(bins: Sequence[Bin], after: Sequence[Bin] = ()) -> Chart:
    """How sure the model is against how often it is right, as it is and `after` temperature."""
    ends = [x for b in (*bins, *after) for x in (b.predicted, *b.observed.ends)]
    scale = build_scale(ends, unit="share", include=[0.5, 1.0])
    frame = Frame(
        x=scale, y=scale, x_title="how sure the model is", y_title="how often people agree with it", height=280
    )
    layers = [draw_line(frame, [(scale.low, scale.low), (scale.high, scale.high)], "line ideal")]
    for b in bins:
        at = frame.across(b.predicted)
        if b.observed.low is not None and b.observed.high is not None:
            ys = {"y1": frame.down(b.observed.low), "y2": frame.down(b.observed.high)}
            layers.append(tag("line", class_="whisker model", x1=at, x2=at, **ys))
        hint = f"sure to {say_share(b.predicted)}, right in {say_estimate(b.observed)} of {say_count(b.n)}"
        layers.append(draw_mark(at, frame.down(b.observed.value), "circle", "model", hint))
    for b in after:
        hint = f"after temperature sure to {say_share(b.predicted)}, right in {say_estimate(b.observed)}"
        layers.append(draw_mark(frame.across(b.predicted), frame.down(b.observed.value), "diamond", "after", hint))
    about = "; ".join(f"sure to {say_share(b.predicted)}: right in {say_share(b.observed.value)}" for b in bins) + "."
    return Chart(name="reliability-plot", title="Reliability diagram", about=about, frame=frame, layers=(*layers,))


def draw_scatter(points: Sequence[Point], curve: Sequence[Point] = ()) -> Chart:
    """Scores over lengths, a dot an answer, with the trend: a fitted curve, or means of equal parts."""
    lengths, scores = [max(1.0, x) for x, _ in points], [y for _, y in points]
    is_wide = max(lengths) > 20 * min(lengths)
    x = build_log_scale(lengths) if is_wide else build_scale(lengths)
    frame = Frame(x=x, y=build_scale(scores), x_title="length of the answer (characters)", y_title="score", height=280)
    trend = [p for p in curve if x.low <= p[0] <= x.high] or build_trend(points)
    layers = (draw_dots(frame, points), draw_line(frame, trend, "line trend"))
    about = (
        f"{say_count(len(points))} answers from {say_count(min(lengths))} to {say_count(max(lengths))} characters. The "
        f"trend goes from a score of {say_number(trend[0][1])} at {say_count(trend[0][0])} characters to "
        f"{say_number(trend[-1][1])} at {say_count(trend[-1][0])}."
    )
    return Chart(name="length-plot", title="Score against length", about=about, frame=frame, layers=layers)


def build_trend(points: Sequence[Point]) -> list[Point]:
    """Mean length and mean score of equal parts of the points, by length."""
    ordered = sorted(points)
    num_bins = max(1, min(NUM_TREND_BINS, len(ordered) // 5))
    cuts = [round(n * len(ordered) / num_bins) for n in range(num_bins + 1)]
    parts = [ordered[a:b] for a, b in pairwise(cuts) if b > a]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def draw_curves(
    name: str, curves: Sequence[Curve], *, titles: tuple[str, str, str], unit: Unit = "number", at: float | None = None
) -> Chart:
    """Curves on one pair of axes (`titles`: of the chart, along, upright); a band where there are intervals; `at` marks
    a place along."""
    ends = [end for curve in curves for _, estimate in curve.points for end in estimate.ends]
    along = [x for curve in curves for x, _ in curve.points]
    is_n = titles[1] == "n"
    x = build_log_scale(along, base=2, most_ticks=9) if is_n else _tight(along)
    y = build_scale(ends, unit=unit)
    frame = Frame(x=x, y=y, x_title=titles[1], y_title=titles[2])
    layers: list[Markup] = []
    if at is not None:
        x_at = frame.across(at)
        layers.append(
            tag("line", class_="line chosen-n", x1=x_at, x2=x_at, y1=frame.down(y.high), y2=frame.down(y.low))
        )
    for curve in curves:
        layers += _draw_curve(frame, curve)
    spans = [
        f"{c.words}: from {say_number(c.points[0][1].value, 3)} to {say_number(c.points[-1][1].value, 3)}"
        for c in curves
    ]
    return Chart(name=name, title=titles[0], about="; ".join(spans) + ".", frame=frame, layers=(*layers,))


def _tight(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    return Scale(low=low, high=high, ticks=ticks_inside(low, high)) if high > low else build_scale(values)


def _draw_curve(frame: Frame, curve: Curve) -> list[Markup]:
    upper = [(x, e.high) for x, e in curve.points if e.high is not None and e.low is not None]
    lower = [(x, e.low) for x, e in curve.points if e.high is not None and e.low is not None]
    middle = [(x, e.value) for x, e in curve.points]
    band = [draw_area(frame, upper, lower, f"band {curve.css}")] if len(upper) > 1 else []
    marks = [
        draw_mark(frame.across(x), frame.down(y), curve.shape, curve.css, f"{curve.words}: {say_number(y, 3)}")
        for x, y in middle
        if curve.shape and len(middle) <= MOST_MARKS
    ]
    return [*band, draw_line(frame, middle, f"line {curve.css}"), *marks]
