"""Two or more models on the same data: who is better, by how much, where, and on which texts they differ.

Part of `report`. Invariant: a difference is called one only where its paired interval excludes zero, and among several
pairs of models, or several subsets, only where its p value times their number is below 0.05.
"""

from __future__ import annotations

from plaudit.measure.significance import ALPHA, say_too_few
from plaudit.report.facts import Facts
from plaudit.report.markup import Child, join, tag
from plaudit.report.mistakes import draw_case
from plaudit.report.pieces import Section, draw_table
from plaudit.report.strips import Row, Strips, draw_strips
from plaudit.report.verdict import Verdict, cannot_tell
from plaudit.report.wording import say_count, say_estimate, say_lead, say_number, say_p, say_share, say_things


def build_comparison_verdict(facts: Facts) -> Verdict:
    """Which model is better, if that can be said."""
    pairs, models = facts.rows("pairs"), facts.rows("models")
    if not pairs or pairs[0].estimate("difference") is None:
        return cannot_tell("No difference was measured.")
    if len(pairs) == 1:
        return _judge_pair(pairs[0])
    verdicts = [_judge_pair(pair, len(pairs)) for pair in pairs]
    shown = [verdict.answer for verdict in verdicts if verdict.level == "good"]
    ranked = sorted(models, key=lambda m: (-(m.number("accuracy") or 0), m.text("name")))
    leader = ranked[0].text("name") if ranked else "the first"
    verb = "is" if len(shown) == 1 else "are"
    sentence = f"{len(shown)} of {say_things(len(pairs), 'difference')} {verb} larger than chance explains."
    if shown and shown.count(f"{leader} is better.") == len(ranked) - 1:
        return Verdict(level="good", answer=f"{leader} is the best.", sentence=sentence)
    return Verdict(
        level="caution", answer="There is no single winner.", sentence=f"{leader} has the highest accuracy. {sentence}"
    )


def is_sure(part: Facts, num_tests: int = 1) -> bool:
    """Whether a difference is more than chance explains, as one of so many that are looked at.

    Reports of older versions have no p value; there the interval alone decides.
    """
    difference, p = part.estimate("difference"), part.number("p")
    return difference is not None and difference.excludes(0.0) and (p is None or p * num_tests < ALPHA)


def _judge_pair(pair: Facts, num_pairs: int = 1) -> Verdict:
    a, b = pair.text("a") or "A", pair.text("b") or "B"
    difference = pair.estimate("difference")
    if difference is None:
        return cannot_tell("No difference was measured.")
    said = f"{b} against {a}: {say_lead(difference)}, paired by prompt"
    p = pair.number("p", "mcnemar_p")
    said += f"; p {say_p(p) if p is not None and p < 0.001 else '= ' + say_p(p)}." if p is not None else "."
    if not is_sure(pair, num_pairs):
        discordant = pair.number("discordant_prompts")
        too_few = say_too_few(int(discordant), num_tests=num_pairs) if discordant is not None else ""
        why = f" {too_few[0].upper()}{too_few[1:]}." if too_few else " The interval holds zero."
        if difference.excludes(0.0) and not too_few:
            why = f" As one of {num_pairs} pairs, that is not enough."
        return Verdict(level="caution", answer="No difference is shown.", sentence=said + why)
    return Verdict(level="good", answer=f"{b if difference.value > 0 else a} is better.", sentence=said)


def draw_models(facts: Facts) -> Section | None:
    """Each model's accuracy."""
    rows = [
        Row(name=m.text("name") or "–", count=say_count(m.number("n")), words=say_estimate(e), estimate=e)
        for m in facts.rows("models")
        if (e := m.estimate("accuracy")) is not None
    ]
    if not rows:
        return None
    strips = Strips(
        caption="Accuracy, with 95% intervals",
        columns=("Model", "Comparisons", "Accuracy"),
        rows=rows,
        line=0.5,
    )
    about = (
        "Each model alone. Their intervals can overlap where the difference is sure, as they answer the same "
        "comparisons: the paired difference below decides."
    )
    return Section(name="models", title="The models", about=about, body=(draw_strips(strips),))


def draw_differences(facts: Facts) -> Section | None:
    """Each pair's difference, and the counts behind it."""
    pairs = [pair for pair in facts.rows("pairs") if pair.estimate("difference") is not None]
    if not pairs:
        return None
    rows = [
        Row(
            name=_say_pair(p),
            count=say_count(p.number("n")),
            words=say_lead(p.estimate("difference"), unit=""),
            estimate=p.estimate("difference"),
        )
        for p in pairs
    ]
    strips = Strips(
        caption="Difference of accuracy in percentage points, with paired 95% intervals",
        columns=("Second minus first", "Comparisons", "Points"),
        rows=rows,
        unit="points",
        include=(-0.02, 0.02),
        line=0.0,
    )
    counts = [
        (
            _say_pair(p),
            say_count(p.number("only_a_right")),
            say_count(p.number("only_b_right")),
            _say_agreement(p),
            say_p(p.number("p", "mcnemar_p")),
        )
        for p in pairs
    ]
    table = draw_table(("Pair", "Only the first right", "Only the second right", "They agree", "p"), counts)
    about = (
        "Resampled by prompt, both models on the same prompts. Only prompts on which they disagree say which is "
        "better; p is the chance of such a difference if neither were, by an exact test on these prompts (McNemar's, "
        "where every prompt has one comparison)."
    )
    return Section(name="differences", title="The difference", about=about, body=(draw_strips(strips), table))


def _say_pair(pair: Facts) -> str:
    return f"{pair.text('b') or 'B'} − {pair.text('a') or 'A'}"


def _say_agreement(pair: Facts) -> str:
    agree = pair.number("agree")
    return say_share(agree) if agree is not None and agree <= 1 else say_count(agree)


def draw_moves(facts: Facts) -> Section | None:
    """Which subsets moved."""
    body: list[Child] = []
    for pair in facts.rows("pairs"):
        rows = []
        subsets = list(pair.part("subsets").nested())
        for name, part in subsets:
            moved = part.estimate("difference")
            label = join([name, " ", tag("em", "moved")]) if is_sure(part, len(subsets)) else name
            rows.append(
                Row(name=label, count=say_count(part.number("n")), words=say_lead(moved, unit=""), estimate=moved)
            )
        if rows:
            caption = f"{_say_pair(pair)} by subset, in percentage points, with paired 95% intervals"
            columns = ("Subset", "Comparisons", "Points")
            body.append(
                draw_strips(
                    Strips(caption=caption, columns=columns, rows=rows, unit="points", include=(-0.02, 0.02), line=0.0)
                )
            )
    if not body:
        return None
    about = (
        "Where the second model gained and where it lost. Of twenty subsets that did not move, one has an interval "
        "that leaves out zero; those that are marked moved by more than chance gives the luckiest of them."
    )
    return Section(name="subsets", title="By subset", about=about, body=(*body,))


def draw_disagreements(facts: Facts) -> Section | None:
    """Texts on which the models disagree."""
    body: list[Child] = []
    for pair in facts.rows("pairs"):
        a, b = pair.text("a") or "A", pair.text("b") or "B"
        body += [_draw_disagreement(n, row, a, b) for n, row in enumerate(pair.rows("disagreements"), 1)]
    if not body:
        return None
    about = "Comparisons that one model gets right and the other wrong, those with the widest gap first."
    return Section(
        name="disagreements", title="Where they disagree", about=about, body=(tag("div", body, class_="mistakes"),)
    )


def _draw_disagreement(place: int, row: Facts, a: str, b: str) -> Child:
    def scores(side: str) -> str:
        found = [(a, row.number(f"a_{side}")), (b, row.number(f"b_{side}"))]
        return ", ".join(f"{name} {say_number(value)}" for name, value in found if value is not None)

    def title(words: str, side: str) -> str:
        return f"{words} ({scores(side)})" if scores(side) else words

    right = {"a": a, "b": b}.get(row.text("right"), row.text("right"))
    notes = [word for word in (row.text("subset"), row.text("id"), f"{right} is right" if right else "") if word]
    return draw_case(place, row, notes, (title("People preferred", "better"), title("The other answer", "worse")))
