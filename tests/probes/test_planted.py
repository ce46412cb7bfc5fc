"""A bias that was planted is found by the probes that touch it, and by no others; a fair scorer is accused by none."""

from __future__ import annotations

import numpy as np
import pytest

from critics import (
    Bias,
    Critic,
    agreeing_is_good,
    being_sure_is_good,
    flattery_is_good,
    good_answers,
    lists_are_good,
    long_is_good,
    write_groups,
)
from plaudit.probes import PROBES, Expects, ProbeSettings, Verdict, measure_probes
from plaudit.probes.verdict import TOLERANCE, find_family_interval, judge_shift

GROUPS = write_groups(140)
GOOD = good_answers(GROUPS)


@pytest.mark.parametrize("seed", range(3))
def test_a_fair_scorer_is_flagged_by_none_and_sees_what_is_worse(seed: int) -> None:
    report = measure_probes(Critic(GOOD, seed=seed), GROUPS, settings=ProbeSettings(seed=seed))
    assert report.flagged == ()
    assert {
        r.probe.name for r in report if r.probe.expects is Expects.LOWER and r.verdict is not Verdict.CAUGHT
    } == set()
    assert sum(r.verdict is Verdict.UNCLEAR for r in report) <= 1
    assert len(report) == len(PROBES) >= 20


@pytest.mark.parametrize(
    ("bias", "up", "down", "fooled"),
    [
        (long_is_good, {"padding", "restating", "template"}, set(), {"repetition"}),
        (lists_are_good, {"bullets", "numbered"}, {"plain_text"}, set()),
        (agreeing_is_good, set(), set(), {"agreement"}),
        (flattery_is_good, {"praise"}, set(), {"empty_flattery"}),
        (being_sure_is_good, {"confidence"}, set(), {"false_confidence"}),
    ],
)
def test_a_planted_bias_is_flagged_by_exactly_the_probes_that_touch_it(
    bias: Bias, up: set[str], down: set[str], fooled: set[str]
) -> None:
    report = measure_probes(Critic(GOOD, bias), GROUPS)
    found = {v: {r.probe.name for r in report if r.verdict is v} for v in Verdict}
    assert (found[Verdict.BIASED_UP], found[Verdict.BIASED_DOWN], found[Verdict.FOOLED]) == (up, down, fooled)
    features = {
        long_is_good: "length",
        lists_are_good: "lists",
        agreeing_is_good: "agreement",
        flattery_is_good: "flattery",
        being_sure_is_good: "confidence",
    }
    touching = {probe.name for probe in PROBES.values() if features[bias] in probe.touches}
    assert up | down | fooled <= touching
    # What touches it and is not flagged takes the feature away, and with it the score, as it should.
    assert touching - up - down - fooled <= found[Verdict.CAUGHT]


def test_few_prompts_are_no_evidence() -> None:
    report = measure_probes(Critic(GOOD), GROUPS[:9])
    assert {result.verdict for result in report if not result.probe.staged} == {Verdict.UNCLEAR}, "too few prompts"
    assert any("too few" in note for note in report.notes)


@pytest.mark.parametrize(
    ("num_prompts", "shape"), [(20, None), (200, None), (200, 4.0), (20, 1.0), (20, -1.0), (50, 1.0)]
)
def test_all_probes_of_a_run_together_accuse_a_fair_scorer_in_one_run_of_twenty(
    num_prompts: int, shape: float | None
) -> None:
    """Shifts without a mean, so wide that they pass the tolerance by chance: only the interval holds them back."""
    rng = np.random.default_rng(num_prompts)
    num_runs, size = 300, (30, num_prompts)
    accused = 0
    for _ in range(num_runs):
        shifts = rng.normal(0.0, 6.0, size)
        if shape is not None:
            k = abs(shape)
            shifts = np.sign(shape) * 6.0 * (rng.gamma(k, size=size) - k) / np.sqrt(k)
        verdicts = [judge_shift(Expects.SAME, find_family_interval(shift, len(shifts))) for shift in shifts]
        accused += any(verdict.is_flag for verdict in verdicts)
    assert accused / num_runs <= 0.05 + 3 * (0.05 * 0.95 / num_runs) ** 0.5


def test_no_fall_is_fooled_only_when_it_is_certain() -> None:
    rng = np.random.default_rng(1)
    fooled = sum(
        judge_shift(Expects.LOWER, find_family_interval(rng.normal(-TOLERANCE, 1.0, 100), 30)) is Verdict.FOOLED
        for _ in range(2_000)
    )
    assert fooled <= 8  # 2,000 times 0.05 / 30 / 2 is 1.7


@pytest.mark.parametrize(
    ("expects", "interval", "verdict"),
    [
        (Expects.SAME, (0.1, 0.5), Verdict.BIASED_UP),
        (Expects.SAME, (-0.5, -0.1), Verdict.BIASED_DOWN),
        (Expects.SAME, (-0.1, 0.1), Verdict.ROBUST),
        (Expects.SAME, (0.05, 0.15), Verdict.ROBUST),
        (Expects.SAME, (0.05, 0.25), Verdict.UNCLEAR),
        (Expects.SAME, (-0.1, 0.9), Verdict.UNCLEAR),
        (Expects.LOWER, (-0.5, -0.1), Verdict.CAUGHT),
        (Expects.LOWER, (-0.1, 0.1), Verdict.FOOLED),
        (Expects.LOWER, (0.3, 0.9), Verdict.FOOLED),
        (Expects.LOWER, (-0.5, 0.1), Verdict.UNCLEAR),
        (Expects.LOWER, None, Verdict.UNCLEAR),
    ],
)
def test_verdicts(expects: Expects, interval: tuple[float, float] | None, verdict: Verdict) -> None:
    assert judge_shift(expects, interval) is verdict
