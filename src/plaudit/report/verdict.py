"""Can this model be trusted? One level and one sentence, from the report's own numbers, with what speaks against it.

Part of `report`; the terminal says the same. A model that does not beat every null baseline by an interval that
excludes zero is not to be relied on, whatever its accuracy; one that does is trusted as far as nothing else speaks
against it. Where many subsets are looked at, the chance of a false alarm is shared among them. Invariant: every reason
names the figure that it rests on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import special

from plaudit.measure.significance import ALPHA, say_too_few
from plaudit.report.facts import Estimate, Facts
from plaudit.report.wording import say_count, say_estimate, say_lead, say_list, say_name, say_share, say_things

FEW_PROMPTS = 100
"""Below this many prompts an interval of accuracy is some ten points wide to either side."""
MANY_UNSCORED = 0.01

BASELINES = {
    "longest": "the longer answer",
    "shortest": "the shorter answer",
    "most_lists": "the answer with more list items",
    "random": "a coin",
    "bag_of_words": "a bag of words",
}
FAILED = ("biased up", "biased down", "fooled")
"""The verdicts of probes that speak against a model."""
PASSED = ("robust", "caught")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`level` is good, caution, bad or unknown; `answer` to the question of trust; the sentence behind it; reasons."""

    level: str
    answer: str
    sentence: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """A null baseline: its accuracy, and how far the model is ahead of it."""

    name: str
    accuracy: Estimate
    lead: Estimate
    discordant: float | None = None

    @property
    def words(self) -> str:
        """What the rule prefers."""
        return BASELINES.get(self.name, say_name(self.name))

    @property
    def is_beaten(self) -> bool:
        """Whether the model is ahead by an interval that excludes zero."""
        return self.lead.low is not None and self.lead.low > 0

    @property
    def lacking(self) -> str:
        """How much evidence is missing, after a semicolon; empty where there could be enough, or it is not known."""
        too_few = say_too_few(int(self.discordant)) if self.discordant is not None else ""
        return f"; {too_few}" if too_few else ""


def cannot_tell(sentence: str, reasons: tuple[str, ...] = ()) -> Verdict:
    """The verdict on what was not measured."""
    return Verdict(level="unknown", answer="This report cannot tell.", sentence=sentence, reasons=reasons)


def build_verdict(report: Mapping[str, Any]) -> Verdict:
    """The verdict on the model of an eval report."""
    facts = Facts(report)
    accuracy, n = facts.estimate("accuracy"), facts.number("n")
    if accuracy is None or n == 0:
        said = "No labelled comparison with two scores was measured, so there is no accuracy to judge by."
        return cannot_tell(said, (*facts.texts("alarms"),))
    rivals = read_rivals(facts)
    right = f"It prefers the answer that people preferred in {say_estimate(accuracy)} of {say_things(n, 'comparison')}"
    unbeaten = [rival for rival in rivals if not rival.is_beaten]
    reasons = (*_find_reasons(facts),)
    if unbeaten:
        strongest = max(unbeaten, key=lambda rival: rival.accuracy.value)
        return Verdict(
            level="bad",
            answer="Not on this evidence.",
            sentence=f"{right}; {strongest.words} is right in {say_share(strongest.accuracy.value)}, and a lead of "
            f"{say_lead(strongest.lead)} is not shown to be more than chance{strongest.lacking}."
            if strongest.lead.value > 0
            else f"{right}; {strongest.words} is right in {say_share(strongest.accuracy.value)}: no lead at all.",
            reasons=reasons,
        )
    if not rivals:
        above = f"{right}; it was held against no null baseline, so how much of that a simple rule would get is open."
        return cannot_tell(above, reasons)
    best = max(rivals, key=lambda rival: rival.accuracy.value)
    ahead = f"{right}, {say_lead(best.lead).replace('+', '')} ahead of the strongest null baseline ({best.words})."
    if reasons:
        return Verdict(level="caution", answer="With care.", sentence=ahead, reasons=reasons)
    return Verdict(
        level="good", answer="Yes, on data like these.", sentence=ahead + " Nothing measured speaks against it."
    )


def read_rivals(facts: Facts) -> list[Rival]:
    """The null baselines of a report, the strongest first."""
    own, rivals = facts.estimate("accuracy"), []
    for name, part in facts.part("baselines").nested():
        accuracy = part.estimate("accuracy")
        if accuracy is None or own is None:
            continue
        lead = part.estimate("lead") or Estimate(value=own.value - accuracy.value)
        rivals.append(Rival(name=name, accuracy=accuracy, lead=lead, discordant=part.number("discordant_prompts")))
    return sorted(rivals, key=lambda rival: (-rival.accuracy.value, rival.name))


def is_failed(probe: Facts) -> bool:
    """Whether a probe speaks against the model."""
    return probe.text("verdict") in FAILED


def say_failed(probes: Sequence[Facts]) -> str:
    """How many of the probes speak against the model, and which; nothing where none does."""
    failed = [say_name(probe.text("name")) for probe in probes if is_failed(probe)]
    of = say_things(len(probes), "probe")
    return f"{len(failed)} of {of} speak against it: {say_list(failed)}." if failed else ""


def _find_reasons(facts: Facts) -> Iterator[str]:
    yield from facts.texts("alarms")
    probes = facts.rows("probes")
    if failed := say_failed(probes):
        yield failed
    elif not probes:
        yield "No probes were made, so what moves its scores without a reason (length, lists, flattery) is not known."
    subsets = list(facts.part("subsets").nested())
    for name, part in subsets:
        accuracy = part.estimate("accuracy")
        if accuracy is not None and _is_below_chance(accuracy, len(subsets)):
            yield f"On {name} it is worse than a coin: {say_estimate(accuracy)}."
    unscored, n = facts.number("unscored") or 0, facts.number("n") or 0
    if unscored > MANY_UNSCORED * (n + unscored):
        every = say_things(n + unscored, "comparison")
        yield f"{say_count(unscored)} of {every} could not be scored, and are not in its accuracy."
    prompts = facts.number("prompts")
    if prompts is not None and prompts < FEW_PROMPTS:
        yield f"There are only {say_things(prompts, 'prompt')}: other prompts may give another picture."


def _is_below_chance(accuracy: Estimate, num_subsets: int) -> bool:
    """Whether a subset's accuracy is surely below one half, though it is one of many that are looked at."""
    if accuracy.high is None:
        return False
    wider = special.ndtri(1 - ALPHA / (2 * num_subsets)) / special.ndtri(1 - ALPHA / 2)
    return accuracy.value + float(wider) * (accuracy.high - accuracy.value) < 0.5
