"""Accuracy: against the null baselines, by subset, by length gap, as a ranking, and the scores themselves.

Part of `report`. Invariant: no accuracy stands without its interval where one was measured, and none without what a
rule that reads nothing would get.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from markupsafe import Markup

from plaudit.report.canvas import draw_key
from plaudit.report.charts import draw_histogram
from plaudit.report.facts import Facts
from plaudit.report.markup import Child, join, tag
from plaudit.report.pieces import Section, draw_figure, draw_table, paragraphs
from plaudit.report.strips import Mark, Row, Strips, draw_keys, draw_strips
from plaudit.report.verdict import BASELINES, read_rivals
from plaudit.report.wording import (
    say_count,
    say_estimate,
    say_lead,
    say_name,
    say_number,
    say_share,
    say_things,
)

SHAPES: Mapping[str, str] = MappingProxyType(
    {"longest": "diamond", "shortest": "down", "most_lists": "square", "bag_of_words": "cross", "random": "bar"}
)
MOST_SUBSETS = 200


def draw_baselines(facts: Facts) -> Section | None:
    """The model and each null baseline on one axis, and the lead over each."""
    accuracy = facts.estimate("accuracy")
    if accuracy is None:
        return None
    name = facts.part("model").text("name") or "the model"
    own = Row(name=tag("strong", name), count="", words=say_estimate(accuracy), estimate=accuracy)
    rivals = read_rivals(facts)
    rows = [own] + [
        Row(
            name=r.words,
            count=say_lead(r.lead, unit=""),
            words=say_estimate(r.accuracy),
            estimate=r.accuracy,
            css="rival",
        )
        for r in rivals
    ]
    strips = Strips(
        caption="Accuracy, with 95% intervals",
        columns=("Preferred by", "Lead in points", "Accuracy"),
        rows=rows,
        line=0.5,
    )
    about = (
        "The share of comparisons in which the model scores the answer higher that people preferred. A null baseline "
        "is a rule that does not understand a word: what the model is worth is its lead over the strongest of them."
    )
    return Section(
        name="baselines",
        title="Null baselines",
        about=about,
        body=(draw_strips(strips), _explain_baselines(facts, bool(rivals))),
    )


def _explain_baselines(facts: Facts, has_rivals: bool) -> Markup:
    n, prompts = facts.number("n"), facts.number("prompts")
    counted = [f"Measured on {say_things(n, 'comparison')}"]
    counted += [f" of {say_things(prompts, 'prompt')}"] if prompts is not None else []
    counted += ["; intervals by bootstrap over prompts, as comparisons of one prompt are not independent."]
    sentences = ["".join(counted)]
    if equal := facts.number("score_ties"):
        sentences.append(f"{say_things(equal, 'comparison')} with two equal scores {_verb(equal)} half.")
    if ties := facts.number("ties"):
        sentences.append(
            f"{say_things(ties, 'comparison')} that people called a tie {_verb(ties, 'is', 'are')} left out."
        )
    if unscored := facts.number("unscored"):
        reasons = [
            f"{say_count(Facts(facts.part('unscored_reasons').table).number(k))} {say_name(k)}"
            for k in facts.part("unscored_reasons").table
        ]
        why = f" ({', '.join(reasons)})" if reasons else ""
        sentences.append(
            f"{say_things(unscored, 'comparison')} could not be scored{why} and "
            f"{_verb(unscored, 'is', 'are')} left out."
        )
    if not has_rivals:
        sentences.append("No null baseline was measured.")
    elif "bag_of_words" in facts.part("baselines").table:
        sentences.append(
            "The bag of words is trained on the other prompts of these data; where it does well, labels can be guessed "
            "without reading."
        )
    return tag("p", " ".join(sentences), class_="fine")


def _verb(count: float, one: str = "counts", many: str = "count") -> str:
    return one if count == 1 else many


def draw_subsets(facts: Facts) -> Section | None:
    """Each subset with its interval, and the null baselines as marks."""
    named = sorted(facts.part("subsets").nested(), key=lambda pair: (-(pair[1].number("accuracy") or 0.0), pair[0]))
    if len(named) < 2:
        return None
    rows = [_subset_row(name, part, facts.text("worst_subset")) for name, part in named[:MOST_SUBSETS]]
    strips = Strips(
        caption="Accuracy by subset, with 95% intervals",
        columns=("Subset", "Comparisons", "Accuracy"),
        rows=rows,
        line=0.5,
    )
    more = len(named) - len(rows)
    return Section(
        name="subsets",
        title="By subset",
        about="Where the model is strong and where it is not. A mark to the right of the dot is a rule that beats "
        "it there; an interval that crosses 50% is a subset on which nothing is shown.",
        body=(
            draw_keys(rows),
            draw_strips(strips),
            paragraphs(f"{say_things(more, 'more subset')} are in report.json." if more > 0 else ""),
        ),
    )


def _subset_row(name: str, part: Facts, worst: str) -> Row:
    accuracy, marks = part.estimate("accuracy"), []
    baselines = part.part("baselines")
    for key in baselines.table:
        value = baselines.number(key)
        value = baselines.part(key).number("accuracy") if value is None else value
        if value is not None and key != "random":
            words = BASELINES.get(key, say_name(key))
            marks.append(Mark(value=value, shape=SHAPES.get(key, "bar"), css="rival", words=words))
    label: Child = join([name, " ", tag("em", "weakest")]) if name == worst else name
    return Row(
        name=label,
        count=say_count(part.number("n")),
        words=say_estimate(accuracy),
        estimate=accuracy,
        marks=(*marks,),
    )


def draw_length_gaps(facts: Facts) -> Section | None:
    """Accuracy by how much longer the preferred answer is."""
    rows = [
        Row(name=_say_gap(row), count=say_count(row.number("n")), words=say_estimate(e), estimate=e)
        for row in facts.rows("length_gaps")
        if (e := row.estimate("accuracy")) is not None
    ]
    if not rows:
        return None
    strips = Strips(
        caption="Accuracy by length gap, with 95% intervals",
        columns=("The preferred answer is", "Comparisons", "Accuracy"),
        rows=rows,
        line=0.5,
    )
    about = (
        "How accurate the model is where the preferred answer is the shorter or the longer one, by a share of the "
        "longer one's length. A model that judges by length is right at one end and wrong at the other; a fair one "
        "has dots on one level."
    )
    return Section(name="length-gaps", title="By length gap", about=about, body=(draw_strips(strips),))


def _say_gap(row: Facts) -> str:
    low, high = row.number("low"), row.number("high")
    if low is None or high is None:
        ends = f"{say_share(high)} longer at most" if low is None else f"{say_share(low)} longer or more"
        return ends if low is not None or high is not None else "of any length"
    if low < 0 and high <= 0:
        return f"{_whole(-high)} to {_whole(-low)}% shorter"
    if low >= 0:
        return f"{_whole(low)} to {_whole(high)}% longer"
    return f"{_whole(-low)}% shorter to {_whole(high)}% longer"


def _whole(share: float) -> str:
    return say_number(100 * share, 0)


def draw_ranking(facts: Facts) -> Section | None:
    """How well whole lists of answers are put in order."""
    ranking = facts.part("ranking")
    kinds = (
        (
            "pairwise",
            "Pairs in order",
            "of all pairs in a list, the share that the model puts in the order of the labels",
        ),
        ("top1", "Best answer found", "how often the answer that it scores highest is one that people put first"),
        ("kendall", "Kendall's tau-b", "1 is the order of the labels, 0 no relation to it, −1 its reverse"),
        ("ndcg", "NDCG", "1 where good answers stand at the top; mistakes further down count less"),
        ("rating_picked", "Mean rating of its first pick", "on the scale of the labels"),
    )
    rows = [
        (tag("span", words, tag("small", meaning)), say_estimate(e, places=3), _say_rivals(ranking, key))
        for key, words, meaning in kinds
        if (e := ranking.estimate(key)) is not None
    ]
    if not rows:
        return None
    groups = ranking.number("groups")
    about = f"Over {say_things(groups, 'prompt')} with three or more rated or ranked answers." if groups else ""
    table = draw_table(("Measure", "Value, with 95% interval", "To hold it against"), rows)
    return Section(name="ranking", title="Ranking", about=about, body=(table,))


def _say_rivals(ranking: Facts, key: str) -> str:
    """What no scores at all would get, and what the best order would."""
    others = (("rating_mean", "a coin"), ("rating_best", "the best pick")) if key == "rating_picked" else ()
    others = ((f"{key}_random", "a coin"), *others)
    known = ((words, ranking.number(name)) for name, words in others)
    return ", ".join(f"{words} {say_number(value, 3)}" for words, value in known if value is not None)


def draw_scores(facts: Facts) -> Section | None:
    """The distribution of scores."""
    scores = facts.part("scores")
    histogram = scores.part("histogram")
    edges, better, worse = (histogram.numbers(name) for name in ("edges", "better", "worse"))
    mean, std = scores.number("mean"), scores.number("std")
    told = f"Mean {say_number(mean)}, standard deviation {say_number(std)}" if mean is not None else ""
    low, high = scores.number("min"), scores.number("max")
    told += f", from {say_number(low)} to {say_number(high)}." if told and low is not None else "." if told else ""
    if len(edges) < 2 or len(better) != len(edges) - 1 or len(worse) != len(better) or edges[0] >= edges[-1]:
        return None
    keys = (
        draw_key("preferred answers", "key better", is_area=True),
        draw_key("other answers", "key worse", is_area=True),
    )
    about = (
        "What people preferred should lie to the right. Where the two shapes cover each other the model cannot tell "
        "them apart; the zero point means nothing, only differences do."
    )
    figure = draw_figure(draw_histogram(edges, better, worse), legend=keys)
    return Section(
        name="scores", title="Scores", about=about, body=(figure, tag("p", told, class_="fine") if told else None)
    )
