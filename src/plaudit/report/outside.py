"""What the model is held against from outside: public benchmarks, leaks out of them, and drift from older data.

Part of `report`. Invariant: a benchmark that was measured on a part of its data says so next to its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from plaudit.report.facts import Facts
from plaudit.report.markup import Child, join, tag
from plaudit.report.pieces import Section, draw_badge, draw_notes, draw_table, fold
from plaudit.report.strips import Row, Strips, draw_strips
from plaudit.report.wording import say_count, say_estimate, say_lead, say_name, say_number, say_share

DEEPEST = 3
MOVED = ("accuracy", "score", "length", "far")
SENTENCES = ("verdict", "sentence", "about", "advice")


def draw_benchmarks(facts: Facts) -> Section | None:
    """Each benchmark's official number, and its parts."""
    named = list(facts.part("benchmarks").nested())
    if not named:
        return None
    rows: list[Row] = []
    folded: list[Child] = []
    for name, part in named:
        score, title = part.estimate("score"), part.text("title") or name
        partial = draw_badge("caution", "not all of it") if part.table.get("complete") is False else None
        told = tag("small", part.text("about")) if part.text("about") else None
        label = join([title, " ", partial, told])
        rows.append(Row(name=label, count=say_count(part.number("n")), words=say_estimate(score), estimate=score))
        folded += [
            fold(f"{title}: its parts", draw_table(("Part", "Prompts", "Score"), parts))
            for parts in [list(_list_parts(part.part("parts")))]
            if parts
        ]
        left = part.part("left_out")
        reasons = [f"{say_count(left.number(key))} {key}" for key in left.table]
        notes = [f"{title}: {', '.join(reasons)} left out"] if reasons else []
        folded.append(draw_notes("plain", [*notes, *(f"{title}: {note}" for note in part.texts("notes"))]))
    strips = Strips(
        caption="Official score of each benchmark, with 95% intervals",
        columns=("Benchmark", "Prompts", "Score"),
        rows=rows,
    )
    about = (
        "Public benchmarks, each by its own published rule. Only a score on all of a benchmark's rows can be held "
        "against published ones."
    )
    return Section(name="benchmarks", title="Benchmarks", about=about, body=(draw_strips(strips), *folded))


def _list_parts(parts: Facts, within: str = "", depth: int = 0) -> Iterator[tuple[Child, str, str]]:
    """The parts of a benchmark, each followed by the parts that lie within it."""
    for key in parts.table:
        name, part, value = str(key), parts.part(key), parts.number(key)
        inside = part.text("within")
        # A part within one that is not there stands among the first ones.
        if (inside if inside in parts.table and inside != name else "") != within or depth > DEEPEST:
            continue
        words = "· " * depth + say_name(name)
        score = part.estimate("score")
        yield words, say_count(part.number("n")), say_estimate(score) if score else say_share(value)
        yield from _list_parts(parts, name, depth + 1)


def draw_contamination(facts: Facts) -> Section | None:
    """Whether the training data hold what is measured on."""
    found = facts.part("contamination")
    about = (
        "Whether prompts or answers that are measured on stood in the training data, where they can be learnt by heart."
    )
    return _draw_findings(found, "contamination", "Contamination", about)


def draw_drift(facts: Facts) -> Section | None:
    """Whether the data have moved away from those that the model was made for."""
    about = "The new data against the reference: whether the model still stands on the ground that it was trained on."
    found = facts.part("drift")
    section = _draw_findings(Facts({k: v for k, v in found.table.items() if k not in MOVED}), "drift", "Drift", about)
    rows = list(_list_moves(found))
    if section is None or not rows:
        return section
    table = draw_table(("", "New", "Reference", "Difference"), rows)
    return replace(section, body=(*section.body, table))


def _list_moves(found: Facts) -> Iterator[tuple[str, str, str, str]]:
    """New data beside the reference, a row a quantity."""
    fall, far = found.part("accuracy"), found.part("far")
    if fall.number("new") is not None or fall.number("reference") is not None:
        new, old = say_share(fall.number("new")), say_share(fall.number("reference"))
        yield "Accuracy", new, old, say_lead(fall.estimate("difference"))
    for name, words in (("score", "Mean score"), ("length", "Mean length (characters)")):
        part, places = found.part(name), 2 if name == "score" else 0
        if part.number("mean") is not None:
            moved = part.estimate("moved")
            new, old = say_number(part.number("mean"), places), say_number(part.number("mean_reference"), places)
            yield words, new, old, f"{say_estimate(moved, places=2)} standard deviations" if moved else "–"
    if far.number("share") is not None:
        yield "Far from the reference", say_estimate(far.estimate("share")), say_share(far.number("expected")), ""


def _draw_findings(found: Facts, name: str, title: str, about: str) -> Section | None:
    if not found:
        return None
    sentences = [found.text(key) for key in SENTENCES if found.text(key)]
    body: list[Child] = [
        draw_notes("plain", sentences),
        draw_notes("caution", found.texts("alarms")),
        draw_notes("plain", found.texts("notes")),
    ]
    rows = list(_flatten(Facts({k: v for k, v in found.table.items() if k not in (*SENTENCES, "alarms", "notes")})))
    body += [draw_table(("Measure", "Value"), rows)] if rows else []
    return Section(name=name, title=title, about=about, body=(*body,))


def _flatten(facts: Facts, lead: str = "") -> Iterator[tuple[str, str]]:
    """Numbers and words of a table and of the tables in it, with their intervals."""
    for key in facts.table:
        name = f"{lead}{say_name(str(key))}"
        number, words = facts.estimate(key), facts.text(key)
        if number is not None:
            yield name, say_estimate(number, places=_places(number.value))
        elif words:
            yield name, words
        elif facts.part(key):
            yield from _flatten(facts.part(key), f"{name}: ")


def _places(value: float) -> int:
    return 0 if value == int(value) and abs(value) > 1 else 3
