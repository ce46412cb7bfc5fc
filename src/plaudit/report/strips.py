"""Dot and whisker: a table in which every row is a name, a number with its interval, and both drawn on a shared axis.

Part of `report`; stands on `canvas`. Names and numbers are text of the page, so they wrap, can be selected and are read
aloud; the drawing of a row stands under them on a phone. Invariant: all rows of a table share one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from plaudit.report.canvas import draw_key, draw_mark, percent
from plaudit.report.facts import Estimate
from plaudit.report.markup import Child, tag
from plaudit.report.scales import Scale, Unit, build_scale

HEIGHT, MIDDLE = 26, 13


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Something to hold a row against: a null baseline, the other model."""

    value: float
    shape: str
    css: str
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A name, what it counts, the number as text, and the number to draw."""

    name: Child
    count: str
    words: str
    estimate: Estimate | None
    marks: tuple[Mark, ...] = ()
    css: str = "model"
    verdict: Child = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Strips:
    """A table of rows: what its columns are, and what the axis is."""

    caption: str
    columns: tuple[str, str, str]
    rows: Sequence[Row]
    unit: Unit = "share"
    include: tuple[float, ...] = ()
    line: float | None = None
    verdict: str = ""


def draw_strips(strips: Strips) -> Markup:
    """The table."""
    ends = [x for row in strips.rows if row.estimate for x in row.estimate.ends]
    ends += [mark.value for row in strips.rows for mark in row.marks]
    also = strips.include if strips.line is None else (*strips.include, strips.line)
    scale = build_scale(ends, unit=strips.unit, include=also, num_ticks=4)
    name, count, value = strips.columns
    # What a table's rows are laid out as on a phone makes browsers forget that they are rows; the roles remind them.
    heads = [_cell("th", name, "columnheader", "name"), _cell("th", count, "columnheader", "count")]
    heads += [_cell("th", value, "columnheader", "value"), _cell("th", _draw_axis(scale), "columnheader", "strip")]
    heads += [_cell("th", strips.verdict, "columnheader", "verdict")] if strips.verdict else []
    rows = [_draw_row(row, scale, strips) for row in strips.rows]
    return tag(
        "table",
        tag("caption", strips.caption),
        tag("thead", tag("tr", heads, role="row"), role="rowgroup"),
        tag("tbody", rows, role="rowgroup"),
        class_="strips judged" if strips.verdict else "strips",
        role="table",
    )


def draw_keys(rows: Sequence[Row]) -> Markup:
    """The legend of a table: the model, then each kind of mark that is in it."""
    kinds = {mark.words: mark for row in rows for mark in row.marks}
    keys = [draw_key("the model", "model", shape="circle")]
    keys += [draw_key(words, mark.css, shape=mark.shape) for words, mark in kinds.items()]
    return tag("ul", keys, class_="legend")


def _draw_row(row: Row, scale: Scale, strips: Strips) -> Markup:
    cells = [_cell("th", row.name, "rowheader", "name")]
    cells += [tag("td", row.count, role="cell", class_="count", data_name=strips.columns[1])]
    cells += [
        _cell("td", row.words, "cell", "value"),
        _cell("td", _draw_strip(row, scale, strips.line), "cell", "strip"),
    ]
    cells += [_cell("td", row.verdict, "cell", "verdict")] if strips.verdict else []
    return tag("tr", cells, role="row")


def _cell(kind: str, content: Child, role: str, css: str) -> Markup:
    scope = {"rowheader": "row", "columnheader": "col"}.get(role)
    return tag(kind, content, role=role, class_=css, scope=scope)


def _draw_axis(scale: Scale) -> Markup:
    labels = [
        tag("text", scale.label(t), class_="tick", x=percent(scale.place(t)), y=15, text_anchor="middle")
        for t in _thinned(scale.ticks)
    ]
    return tag("svg", labels, class_="row", width="100%", height=20, aria_hidden="true")


def _thinned(ticks: tuple[float, ...]) -> tuple[float, ...]:
    return ticks if len(ticks) <= 7 else ticks[::2]


def _draw_strip(row: Row, scale: Scale, line: float | None) -> Markup:
    def level(x1: str, x2: str, css: str, ys: tuple[float, float]) -> Markup:
        return tag("line", x1=x1, x2=x2, y1=ys[0], y2=ys[1], class_=css)

    drawn = [level(p, p, "grid", (0, HEIGHT)) for p in (percent(scale.place(t)) for t in scale.ticks)]
    if line is not None:
        at = percent(scale.place(line))
        drawn.append(level(at, at, "line null", (0, HEIGHT)))
    estimate = row.estimate
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        ends = percent(scale.place(estimate.low)), percent(scale.place(estimate.high))
        drawn.append(level(*ends, f"whisker {row.css}", (MIDDLE, MIDDLE)))
    drawn += [draw_mark(percent(scale.place(m.value)), MIDDLE, m.shape, m.css, m.words) for m in row.marks]
    if estimate is not None:
        drawn.append(draw_mark(percent(scale.place(estimate.value)), MIDDLE, "circle", row.css, row.words))
    return tag("svg", drawn, class_="row", width="100%", height=HEIGHT, aria_hidden="true")
