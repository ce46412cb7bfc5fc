"""A chart's paper: axes, gridlines, marks and lines, as inline SVG.

Part of `report`; stands on `scales`. Across, places are in percent and, down, in pixels: a chart is as wide as the page
lets it be and every word on it stays at 12 pixels, on a phone as in print. Only lines and areas, which SVG cannot write
in percent, lie in an inner drawing that is stretched. Colours are classes of the style sheet, so that dark, light and
paper each have their own; what differs in colour differs in shape or stroke as well.
Invariant: a value is drawn where `Frame` says, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from plaudit.report.markup import Child, tag
from plaudit.report.scales import Scale

TOP, BOTTOM = 24, 44
"""Pixels above the drawing (what the upright axis is of) and below it (ticks, and what the level axis is of)."""
UNITS = 1000
"""Width of the inner drawing, in its own units."""

Point = tuple[float, float]

SHAPES = {
    "circle": "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0Z",
    "diamond": "M0 -5L5 0L0 5L-5 0Z",
    "up": "M0 -5L5 4L-5 4Z",
    "down": "M0 5L5 -4L-5 -4Z",
    "square": "M-4 -4H4V4H-4Z",
    "cross": "M-4 -4L4 4M4 -4L-4 4",
    "bar": "M0 -7V7",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A drawing's two axes, what they are of, and its height in pixels."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    height: int = 240

    def across(self, value: float) -> str:
        """Where a value of the level axis lies."""
        return percent(self.x.place(value))

    def down(self, value: float) -> float:
        """Where a value of the upright axis lies."""
        return round(TOP + (1 - self.y.place(value)) * self.height, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing with its name and its description in words, for those who do not see it."""

    name: str
    title: str
    about: str
    frame: Frame
    layers: tuple[Markup, ...]


def percent(place: float) -> str:
    """A place from 0 to 1 as SVG takes it."""
    return f"{100 * place:.2f}".rstrip("0").rstrip(".") + "%"


def draw_chart(chart: Chart) -> Markup:
    """The whole drawing."""
    frame = chart.frame
    return tag(
        "svg",
        tag("title", chart.title, id_=f"{chart.name}-title"),
        tag("desc", chart.about, id_=f"{chart.name}-about"),
        _draw_axes(frame),
        *chart.layers,
        class_="chart",
        role="img",
        aria_labelledby=f"{chart.name}-title {chart.name}-about",
        width="100%",
        height=TOP + frame.height + BOTTOM,
    )


def _draw_axes(frame: Frame) -> Markup:
    bottom = TOP + frame.height
    grid: list[Child] = []
    for tick in frame.y.ticks:
        y = frame.down(tick)
        grid.append(tag("line", class_="grid", x1="0%", x2="100%", y1=y, y2=y))
        grid.append(tag("text", frame.y.label(tick), class_="tick", x=-8, y=y + 4, text_anchor="end"))
    grid.append(tag("line", class_="axis", x1="0%", x2="100%", y1=bottom, y2=bottom))
    for tick in frame.x.ticks:
        x = frame.across(tick)
        grid.append(tag("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 5))
        grid.append(tag("text", frame.x.label(tick), class_="tick", x=x, y=bottom + 18, text_anchor="middle"))
    return tag(
        "g",
        grid,
        tag("text", frame.y_title, class_="name", x=-54, y=10),
        tag("text", frame.x_title, class_="name", x="100%", y=bottom + 38, text_anchor="end"),
    )


def draw_line(frame: Frame, points: Iterable[Point], css: str) -> Markup:
    """Points joined by straight lines."""
    return _stretch(frame, "M" + "L".join(_unit(frame, point) for point in points), css)


def draw_area(frame: Frame, upper: Sequence[Point], lower: Sequence[Point], css: str) -> Markup:
    """What lies between two lines."""
    outline = [*upper, *reversed(lower)]
    return _stretch(frame, "M" + "L".join(_unit(frame, point) for point in outline) + "Z", css)


def _unit(frame: Frame, point: Point) -> str:
    x, y = UNITS * frame.x.place(point[0]), (1 - frame.y.place(point[1])) * frame.height
    return f"{x:.1f} {y:.1f}"


def _stretch(frame: Frame, path: str, css: str) -> Markup:
    return tag(
        "svg",
        tag("path", d=path, class_=css, vector_effect="non-scaling-stroke"),
        class_="inner",
        x="0",
        y=TOP,
        width="100%",
        height=frame.height,
        view_box=f"0 0 {UNITS} {frame.height}",
        preserve_aspect_ratio="none",
    )


def draw_dots(frame: Frame, points: Iterable[Point]) -> Markup:
    """Many small dots, see-through where they lie on each other."""
    return tag("g", [tag("circle", cx=frame.across(x), cy=frame.down(y), r=2) for x, y in points], class_="dots")


def draw_mark(across: str, down: float, shape: str, css: str, hint: str) -> Markup:
    """A shape at a place; its words show when it is pointed at, and are read aloud."""
    shown = tag("path", tag("title", hint), d=SHAPES[shape], class_=f"mark {css}")
    return tag("svg", shown, x=across, y=down, class_="inner")


def draw_key(words: str, css: str, *, shape: str = "", is_area: bool = False) -> Markup:
    """One entry of a legend."""
    if shape:
        sample = tag("path", d=SHAPES[shape], class_=f"mark {css}", transform="translate(13 7)")
    elif is_area:
        sample = tag("rect", class_=css, x=2, y=1, width=22, height=12)
    else:
        sample = tag("line", class_=css, x1=0, x2=26, y1=7, y2=7)
    return tag("li", tag("svg", sample, width=26, height=14, aria_hidden="true"), words)
