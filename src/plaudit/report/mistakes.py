"""The worst mistakes, with their whole texts.

Part of `report`. Invariant: a text is shown as it is in the data, escaped, and says so where it had to be cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.report.facts import Facts
from plaudit.report.markup import Child, join, tag
from plaudit.report.pieces import Section, Text, draw_texts, first_words, fold
from plaudit.report.wording import say_number, say_signed


def draw_mistakes(facts: Facts) -> Section | None:
    """Where the model is surest and wrong."""
    mistakes = facts.rows("mistakes")
    if not mistakes:
        return None
    about = (
        "The comparisons in which the model is surest of the answer that people did not prefer. Read some: each is a "
        "mistake of the model or of the label, and which of the two it is decides what to do next."
    )
    folded = [_draw_mistake(place, row) for place, row in enumerate(mistakes, 1)]
    return Section(name="mistakes", title="Worst mistakes", about=about, body=(tag("div", folded, class_="mistakes"),))


def _draw_mistake(place: int, row: Facts) -> Child:
    better, worse = row.number("score_better"), row.number("score_worse")
    gap = f"off by {say_number(worse - better)}" if better is not None and worse is not None else ""
    where = [word for word in (row.text("subset"), row.text("id"), gap) if word]
    titles = f"People preferred (score {say_signed(better)})", f"The model preferred (score {say_signed(worse)})"
    return draw_case(place, row, where, titles)


def draw_case(place: int, row: Facts, notes: Sequence[str], titles: tuple[str, str]) -> Child:
    """One comparison with its whole texts, folded but for the first: `titles` stand over the better and the worse."""
    words = f" {first_words(row.text('prompt')) or '(no prompt)'} "
    head = join([tag("b", f"{place}."), words, tag("small", " · ".join(notes))])
    texts = [Text(title="Prompt", body=row.text("prompt"), css="prompt")]
    texts += [Text(title=t, body=row.text(css), css=css) for t, css in zip(titles, ("better", "worse"), strict=True)]
    return fold(head, draw_texts(texts), is_open=place == 1)
