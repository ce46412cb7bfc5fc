"""Probes: what moves the scores that should not, and what should and does not.

Part of `report`, on the eval page and on a page of its own. Invariant: every probe is judged in words beside its number
and shows the texts that it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from plaudit.report.facts import Facts
from plaudit.report.markup import Child, join, tag
from plaudit.report.pieces import Section, Text, draw_badge, draw_texts, first_words, fold
from plaudit.report.strips import Row, Strips, draw_strips
from plaudit.report.verdict import PASSED, Verdict, cannot_tell, is_failed, say_failed
from plaudit.report.wording import (
    say_count,
    say_name,
    say_number,
    say_range,
    say_share,
    say_signed,
    say_things,
)

KINDS = (
    (
        "same",
        "Edits that keep the meaning",
        "The score should stay: dots belong on the line at zero. Robust: it surely moves by less than 0.2 on the mean. "
        "Biased: it surely moves, by 0.2 or more. Unclear: with so few prompts neither can be said.",
    ),
    (
        "lower",
        "Edits that make the answer worse",
        "The score should fall: dots belong to the left of the line at zero. Caught: it surely falls. Fooled: it "
        "surely does not fall by 0.2. Unclear: with so few prompts neither can be said.",
    ),
)
MOST_EXAMPLES = 3


def build_probe_verdict(facts: Facts) -> Verdict:
    """Whether the probes speak against a model."""
    probes = facts.rows("probes")
    if not probes:
        return cannot_tell("It holds no probes.")
    if failed := say_failed(probes):
        return Verdict(level="caution", answer="Not everywhere.", sentence=failed)
    said = f"None of {say_things(len(probes), 'probe')} speaks against it."
    return Verdict(level="good", answer="Yes, as far as was probed.", sentence=said)


def draw_probes(facts: Facts) -> Section | None:
    """All probes, by what a fair scorer would do."""
    probes = facts.rows("probes")
    if not probes:
        return None
    failed = sum(map(is_failed, probes))
    body: list[Child] = []
    for kind, title, expected in KINDS:
        chosen = [probe for probe in probes if probe.text("expects") == kind]
        body += [tag("h3", title), tag("p", expected), _draw_kind(chosen)] if chosen else []
    rest = [probe for probe in probes if probe.text("expects") not in ("same", "lower")]
    body += [tag("h3", "Other probes"), _draw_kind(rest)] if rest else []
    told = f"{failed} of {say_things(len(probes), 'probe')} speak against the model. " if failed else ""
    spread, of = facts.number("spread", "probe_spread"), facts.text("spread_of")
    about = told + (
        "Each probe edits answers in one way and scores them again. A shift of 1 is as far as scores spread (one "
        f"standard deviation{f' {of}' if of else ''}{f': {say_number(spread)}' if spread is not None else ''}). A flip "
        "is an edited answer that comes out on the other side of the answers it is held against."
    )
    return Section(name="probes", title="Probes", about=about, body=(*body, *_draw_examples(probes)))


def _draw_kind(probes: Sequence[Facts]) -> Markup:
    rows = [_probe_row(probe) for probe in probes]
    strips = Strips(
        caption="Mean shift of the score in standard deviations, with 95% intervals",
        columns=("Probe", "Answers", "Shift"),
        rows=rows,
        unit="number",
        include=(-0.5, 0.5),
        line=0.0,
        verdict="Verdict",
    )
    return draw_strips(strips)


def _probe_row(probe: Facts) -> Row:
    shift, flips = probe.estimate("shift"), probe.estimate("flip_rate")
    level = "bad" if is_failed(probe) else "good" if probe.text("verdict") in PASSED else "unknown"
    words = probe.text("verdict") or "not judged"
    note = f"flips {say_share(flips.value)}" if flips is not None else ""
    value = (
        say_signed(shift.value) + (f" ({inside})" if (inside := say_range(shift, places=2)) else "") if shift else "–"
    )
    about = tag("small", probe.text("about")) if probe.text("about") else None
    return Row(
        name=join([say_name(probe.text("name")), about]),
        count=say_count(probe.number("n")),
        words=value,
        estimate=shift,
        css="failed" if level == "bad" else "model",
        verdict=join([draw_badge(level, words), tag("small", note) if note else None]),
    )


def _draw_examples(probes: Sequence[Facts]) -> list[Child]:
    """Before and after, folded; what fails comes first."""
    shown: dict[bool, list[Markup]] = {True: [], False: []}
    for probe in probes:
        examples = probe.rows("examples")[:MOST_EXAMPLES]
        if examples:
            title = f"{say_name(probe.text('name'))}: {first_words(probe.text('about'), 90)}"
            shown[is_failed(probe)].append(fold(title, [_draw_example(example) for example in examples]))
    parts = [
        (tag("h3", title), *shown[failed])
        for failed, title in ((True, "Examples of what speaks against it"), (False, "Examples of the other probes"))
        if shown[failed]
    ]
    return [tag("div", *parts, class_="examples")] if parts else []


def _draw_example(example: Facts) -> Markup:
    texts = [
        Text(title="Prompt", body=example.text("prompt"), css="prompt"),
        Text(title=f"Before: {say_number(example.number('score_before'), 3)}", body=example.text("before")),
        Text(title=f"After: {say_number(example.number('score_after'), 3)}", body=example.text("after")),
    ]
    return draw_texts(texts)
