"""What sections are made of: headings with a sentence, figures, tables, tiles, texts that fold, callouts.

Part of `report`; knows no key of report.json. Invariant: a wide thing stands in a box of its own that scrolls, so the
page never does; a text out of the data keeps its lines and its direction of writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from plaudit.report.canvas import Chart, draw_chart
from plaudit.report.markup import Child, join, tag

Level = str
"""good, caution, bad or unknown."""
SIGNS = {"good": "✓", "caution": "!", "bad": "✕", "unknown": "?"}

LONGEST = 20_000
"""Characters of one text on the page; a longer one is cut, and says by how much. report.json has it whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page with a heading of its own; `name` is where links to it lead."""

    name: str
    title: str
    about: Child
    body: tuple[Child, ...]

    def render(self) -> Markup:
        """As markup."""
        about = tag("p", self.about, class_="about") if self.about else None
        return tag("section", tag("h2", self.title), about, *self.body, id_=self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One figure of the first screen: what it is, the number, what to hold it against."""

    name: str
    value: str
    note: str
    level: Level = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text out of the data, and what stands over it."""

    title: str
    body: str
    css: str = ""


def draw_figure(chart: Chart, *, legend: Sequence[Markup], table: Child = None, narrow: bool = False) -> Markup:
    """A chart, its legend over it and its numbers folded under it."""
    keys = tag("ul", legend, class_="legend")
    title = tag("figcaption", chart.title)
    folded = fold("The numbers", table) if table is not None else None
    return tag("figure", title, keys, draw_chart(chart), folded, class_="narrow" if narrow else None)


def fold(title: Child, *body: Child | list[Markup], is_open: bool = False) -> Markup:
    """What is shown when it is asked for."""
    return tag("details", tag("summary", title), *body, open=is_open)


def draw_table(heads: Sequence[str], rows: Iterable[Sequence[Child]], caption: str = "") -> Markup:
    """A plain table: the first column names the row, the others are numbers or words."""
    head = tag("tr", [tag("th", head, scope="col") for head in heads])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    top = tag("caption", caption) if caption else None
    return tag("div", tag("table", top, tag("thead", head), tag("tbody", body), class_="numbers"), class_="scroll")


def draw_pairs(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names and what they stand for, without those that stand for nothing."""
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value]
    return tag("dl", rows)


def draw_tiles(tiles: Sequence[Tile]) -> Markup:
    """The figures of the first screen, side by side."""
    return tag(
        "ul",
        [
            tag("li", tag("span", t.name), tag("strong", t.value), tag("small", t.note), class_=t.level or None)
            for t in tiles
        ],
        class_="tiles",
    )


def draw_badge(level: Level, words: str) -> Markup:
    """A verdict in a word, with a sign that does without colour."""
    return tag("span", tag("span", SIGNS[level], aria_hidden="true"), f" {words}", class_=f"badge {level}")


def draw_notes(level: Level, sentences: Iterable[str]) -> Markup | None:
    """Sentences that a reader has to see; None if there are none."""
    items = [tag("li", sentence) for sentence in sentences]
    return tag("ul", items, class_=f"notes {level}") if items else None


def draw_texts(texts: Iterable[Text]) -> Markup:
    """Texts out of the data, next to each other where the page is wide enough."""
    return tag("div", [_draw_text(text) for text in texts], class_="texts")


def _draw_text(text: Text) -> Markup:
    body, over = text.body[:LONGEST], len(text.body) - LONGEST
    said = f"{over:,} more characters are in report.json" if over > 0 else None
    shown = tag("pre", body, dir="auto") if body.strip() else tag("p", "(empty)", class_="empty")
    title = tag("h4", text.title)
    return tag("div", title, shown, tag("p", said, class_="empty") if said else None, class_=f"text {text.css}".strip())


def first_words(text: str, most: int = 110) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def paragraphs(*sentences: str) -> Markup:
    """Sentences as paragraphs, without the empty ones."""
    return join(tag("p", sentence) for sentence in sentences if sentence)
