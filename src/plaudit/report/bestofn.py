"""Best-of-N: what picking the highest of n scores gains, by the scores themselves and by gold ratings.

Part of `report`. Invariant: where no gold rating was given the page says that a rise of the score alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.measure.significance import fewest_discordant
from plaudit.report.canvas import draw_key
from plaudit.report.charts import Curve, draw_curves
from plaudit.report.facts import Estimate, Facts
from plaudit.report.markup import Child, join, tag
from plaudit.report.pieces import Section, draw_figure, draw_table, fold
from plaudit.report.scales import Unit
from plaudit.report.verdict import Verdict
from plaudit.report.wording import say_count, say_estimate, say_name, say_number, say_things

SENTENCE = (
    "By score alone best-of-n rises always, whatever the scores are worth; give gold ratings to see what it gains."
)


CURVES = (
    ("gold", "Gold rating of the best of n", "gold rating", "better"),
    ("score", "Score of the best of n", "score", "worse"),
    ("win_rate", "How often the best of n beats one drawn by lot", "win rate", "better"),
    ("length", "Length of the best of n", "characters", "worse"),
)
LAW = (
    ("a", "a", "how fast gold rises at first"),
    ("b", "b", "how fast over-optimisation eats it; at 0 or below, gold does not turn down"),
    ("r2", "R²", "how much of the curve it explains"),
    ("peak_n", "n of its top", "where gold would be highest"),
)
MOST_ROWS = 12
"""Rows that a table shows unfolded; of more, the powers of two."""


def build_curve_verdict(facts: Facts) -> Verdict:
    """Whether picking by this score gains anything."""
    curve = [row for row in facts.rows("curve") if row.number("n") is not None]
    gold = [(row.number("n"), e) for row in curve if (e := row.estimate("gold")) is not None]
    if len(gold) < 2:
        return Verdict(level="unknown", answer="Not known without gold ratings.", sentence=SENTENCE)
    first, (best_n, best) = gold[0][1], max(gold, key=lambda pair: pair[1].value)
    # The report's own gain allows for the choice of the best n; older reports have that of each n alone.
    gain = facts.estimate("gain") or next((row.estimate("gain") for row in curve if row.number("n") == best_n), None)
    said = f"At n = {say_count(best_n)} the gold rating is {say_estimate(best, places=3)}; "
    said += f"at n = 1 it is {say_estimate(first, places=3)}."
    is_sure = gain.excludes(0.0) if gain is not None else bool(best.low and first.high and best.low > first.high)
    decline = facts.estimate("decline")
    falls = decline is not None and decline.value < 0 and decline.excludes(0.0)
    if falls:
        said += f" It falls to {say_number(gold[-1][1].value, 3)} at n = {say_count(gold[-1][0])}: "
        said += "the score is over-optimised there."
    if best.value > first.value and is_sure:
        return Verdict(
            level="caution" if falls else "good", answer=f"It gains, up to n = {say_count(best_n)}.", sentence=said
        )
    prompts, needed = facts.number("prompts"), fewest_discordant()
    if prompts is not None and prompts < needed:
        said += f" Not enough evidence: {say_things(prompts, 'prompt')}; at least {needed} are needed."
    return Verdict(level="caution", answer="No gain is shown.", sentence=said)


def draw_best_of_n(facts: Facts) -> Section | None:
    """The curves, and all numbers by n."""
    rows = [row for row in facts.rows("curve") if row.number("n") is not None]
    if not rows:
        return None
    figures = [
        figure
        for name, title, unit, css in CURVES
        if (figure := _draw_by_n(rows, name, (title, "n", unit), css, facts)) is not None
    ]
    about = (
        "For each n, what the highest-scored of n answers is worth: an unbiased estimate from all candidates, over "
        "every choice of n among them. The band is the 95% interval over prompts."
    )
    body = (tag("div", figures, class_="pair"), _draw_numbers(rows))
    return Section(name="curve", title="Best of n", about=about, body=body)


def _draw_by_n(rows: Sequence[Facts], name: str, titles: tuple[str, str, str], css: str, facts: Facts) -> Child:
    points: list[tuple[float, Estimate]] = []
    for row in rows:
        n, estimate = row.number("n"), row.estimate(name)
        if n is not None and estimate is not None:
            points.append((n, estimate))
    if len(points) < 2:
        return None
    curve = Curve(words=titles[2], points=(*points,), css=css, shape="circle")
    recommended = facts.number("recommended_n")
    legend = [draw_key("mean over prompts, 95% band", css, shape="circle")]
    legend += [draw_key(f"recommended: n = {say_count(recommended)}", "line chosen-n")] if recommended else []
    unit: Unit = "share" if name == "win_rate" else "number"
    drawn = draw_curves(f"{name}-by-n", [curve], titles=titles, unit=unit, at=recommended)
    return draw_figure(drawn, legend=legend)


def _draw_numbers(rows: Sequence[Facts]) -> Child:
    names = list(dict.fromkeys(key for row in rows for key in row.table if not key.endswith("_ci") and key != "n"))
    names = [name for name in names if any(row.number(name) is not None for row in rows)]
    table = [(say_count(row.number("n")), *(_say_cell(row, name) for name in names)) for row in rows]
    heads = ("n", *(say_name(name) for name in names))
    if len(table) <= MOST_ROWS:
        return draw_table(heads, table, "Every n, with 95% intervals")
    last = rows[-1].number("n")
    powers = [line for line, row in zip(table, rows, strict=True) if _is_shown(row.number("n"), last)]
    shown = draw_table(heads, powers, "Powers of two, with 95% intervals")
    return join([shown, fold(f"All {len(table)} n", draw_table(heads, table))])


def _say_cell(row: Facts, name: str) -> str:
    value = row.estimate(name)
    return say_estimate(value) if name == "win_rate" else say_estimate(value, places=0 if name == "length" else 3)


def _is_shown(n: float | None, last: float | None) -> bool:
    return n is not None and (n == last or int(n) & (int(n) - 1) == 0)


def draw_findings(facts: Facts) -> Section | None:
    """What else the lab found: single numbers of the report, and of its fitted law."""
    shown = ("prompts", "candidates", "left_out", "unscored", "without_gold", "recommended_n", "oracle")
    rows: list[tuple[Child, Child]] = [
        (say_name(key), say_number(value, 0 if value == int(value) else 3))
        for key in shown
        if (value := facts.number(key)) is not None
    ]
    law = facts.part("law")
    rows += [
        (tag("span", f"law: {words}", tag("small", meaning)), say_estimate(e, places=0 if key == "peak_n" else 3))
        for key, words, meaning in LAW
        if (e := law.estimate(key)) is not None
    ]
    if not rows:
        return None
    about = (
        "The law is gain = d (a − b d) with d the square root of the distance from the policy: it says where more "
        "candidates stop to help, and beyond what was sampled only where it points."
    )
    table = draw_table(("What", "Value"), rows)
    return Section(name="findings", title="Findings", about=about if law else "", body=(table,))
