"""report/ verdict, front, comparison, wording: what a page answers, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from plaudit.report import build_verdict
from plaudit.report.bestofn import build_curve_verdict
from plaudit.report.comparison import build_comparison_verdict
from plaudit.report.facts import Estimate, Facts, finite
from plaudit.report.probing import build_probe_verdict
from plaudit.report.wording import (
    say_count,
    say_date,
    say_estimate,
    say_lead,
    say_list,
    say_number,
    say_p,
    say_range,
    say_seconds,
    say_share,
    say_signed,
    say_things,
)
from sample_reports import build_bon, build_compare, build_eval, build_probe


def fair() -> dict[str, Any]:
    """A report that nothing speaks against."""
    report = build_eval() | {"alarms": [], "unscored": 0}
    report["probes"] = [probe | {"verdict": "robust"} for probe in report["probes"]]
    return report


def test_a_model_is_trusted_when_it_beats_every_baseline_and_nothing_speaks_against_it() -> None:
    verdict = build_verdict(fair())
    assert (verdict.level, verdict.answer, verdict.reasons) == ("good", "Yes, on data like these.", ())
    assert "11.9 points (8.8 to 14.9) ahead of the strongest null baseline (a bag of words)" in verdict.sentence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alarms": ["A bag of words is right in 97%."]}, "A bag of words is right in 97%."),
        ({"probes": build_probe()["probes"]}, "2 of 8 probes speak against it: padding and wrong number."),
        ({"probes": []}, "No probes were made"),
        ({"subsets": {"code": {"accuracy": 0.4, "accuracy_ci": [0.35, 0.45], "n": 100}}}, "On code it is worse"),
        ({"unscored": 200}, "200 of 1,800 comparisons could not be scored"),
        ({"prompts": 60}, "There are only 60 prompts"),
    ],
)
def test_what_speaks_against_a_model_is_a_reason_for_care(change: dict[str, Any], reason: str) -> None:
    verdict = build_verdict(fair() | change)
    assert (verdict.level, verdict.answer) == ("caution", "With care.")
    assert [said for said in verdict.reasons if said.startswith(reason)] == list(verdict.reasons)


@pytest.mark.parametrize("lead", [[-0.01, 0.05], [0.0, 0.06], None])
def test_a_lead_that_could_be_chance_is_no_lead(lead: list[float] | None) -> None:
    report = fair()
    report["baselines"]["longest"] |= {"accuracy": 0.70, "lead": 0.023, "lead_ci": lead}
    verdict = build_verdict(report)
    assert (verdict.level, verdict.answer) == ("bad", "Not on this evidence.")
    assert "the longer answer is right in 70.0%" in verdict.sentence and "+2.3 points" in verdict.sentence


def test_a_model_that_is_behind_has_no_lead() -> None:
    report = fair()
    report["baselines"]["shortest"] |= {"accuracy": 0.75, "lead": -0.027, "lead_ci": [-0.05, -0.01]}
    verdict = build_verdict(report)
    assert verdict.level == "bad" and verdict.sentence.endswith("the shorter answer is right in 75.0%: no lead at all.")


def test_without_a_measure_there_is_no_verdict() -> None:
    assert build_verdict({}).level == "unknown"
    assert build_verdict(fair() | {"n": 0}).level == "unknown"
    without = build_verdict(fair() | {"baselines": {}})
    assert without.level == "unknown" and "no null baseline" in without.sentence


def test_a_comparison_names_a_winner_only_where_zero_is_excluded() -> None:
    report = build_compare()
    assert build_comparison_verdict(Facts(report)).answer == "second-run is better."
    pair = report["pairs"][0]
    worse = pair | {"difference": -0.03, "difference_ci": [-0.05, -0.01]}
    assert build_comparison_verdict(Facts(report | {"pairs": [worse]})).answer == "first-run is better."
    unsure = build_comparison_verdict(Facts(report | {"pairs": [pair | {"difference_ci": [-0.01, 0.07]}]}))
    assert (unsure.level, unsure.answer) == ("caution", "No difference is shown.")


def test_of_three_models_one_is_the_best_if_it_beats_all_others() -> None:
    names = ("a", "b", "c")
    models = [{"name": name, "accuracy": 0.6 + n / 20} for n, name in enumerate(names)]

    def pairs(sure: bool) -> list[dict[str, Any]]:
        low = 0.01 if sure else -0.01
        return [
            {"a": one, "b": other, "difference": 0.05, "difference_ci": [low if other == "c" else 0.01, 0.09]}
            for one, other in (("a", "b"), ("a", "c"), ("b", "c"))
        ]

    best = build_comparison_verdict(Facts({"models": models, "pairs": pairs(True)}))
    assert (best.level, best.answer) == ("good", "c is the best.")
    none = build_comparison_verdict(Facts({"models": models, "pairs": pairs(False)}))
    assert none.answer == "There is no single winner." and "1 of 3 differences is larger" in none.sentence


def test_of_several_pairs_and_subsets_each_has_a_share_of_the_chance() -> None:
    pair = {"a": "a", "b": "b", "difference": 0.05, "difference_ci": [0.01, 0.09], "discordant_prompts": 90}
    models = [{"name": name, "accuracy": 0.7} for name in "abc"]
    for p, shown in ((0.016, "3 of 3"), (0.017, "0 of 3")):
        said = build_comparison_verdict(Facts({"models": models, "pairs": [pair | {"p": p}] * 3}))
        assert said.sentence.endswith(f"{shown} differences are larger than chance explains.")
    assert (
        build_comparison_verdict(Facts({"models": models[:2], "pairs": [pair | {"p": 0.049}]})).answer == "b is better."
    )
    for num, is_reason in ((1, True), (20, False)):
        subsets = {str(k): {"accuracy": 0.4, "accuracy_ci": [0.31, 0.49], "n": 115} for k in range(num)}
        reasons = build_verdict(fair() | {"subsets": subsets}).reasons
        assert any("worse than a coin" in reason for reason in reasons) is is_reason


def test_a_lead_without_evidence_says_how_much_is_needed() -> None:
    report = fair()
    report["baselines"]["longest"] |= {
        "accuracy": 0.70, "lead": 0.023, "lead_ci": [-0.01, 0.05], "discordant_prompts": 3,
    }  # fmt: skip
    needed = "not enough evidence: 3 discordant prompts; at least 6 are needed."
    assert build_verdict(report).sentence.endswith(needed)
    report["baselines"]["longest"]["discordant_prompts"] = 6
    assert build_verdict(report).sentence.endswith("is not shown to be more than chance.")


def test_the_gain_of_the_best_n_is_that_which_allows_for_the_choice() -> None:
    report = build_bon()
    assert build_curve_verdict(Facts(report)).answer == "It gains, up to n = 16."
    chance = build_curve_verdict(Facts(report | {"gain": 0.6, "gain_ci": [-0.1, 1.3], "prompts": 5}))
    assert chance.answer == "No gain is shown."
    assert chance.sentence.endswith("Not enough evidence: 5 prompts; at least 6 are needed.")


def test_probes_and_best_of_n_have_their_verdicts() -> None:
    assert build_probe_verdict(Facts(build_probe())).answer == "Not everywhere."
    fine = build_probe()["probes"][1:2]
    assert build_probe_verdict(Facts({"probes": fine})).level == "good"
    report = build_bon()
    assert build_curve_verdict(Facts(report)).answer == "It gains, up to n = 16."
    flat = [row | {"gold": 3.0, "gold_ci": [2.8, 3.2]} for row in report["curve"]]
    assert build_curve_verdict(Facts({"curve": flat})).answer == "No gain is shown."
    bare = [{key: value for key, value in row.items() if "gold" not in key} for row in report["curve"]]
    assert build_curve_verdict(Facts({"curve": bare})).level == "unknown"


def test_the_gain_of_best_of_n_is_judged_by_its_paired_interval() -> None:
    curve = [
        {"n": 1, "gold": 3.0, "gold_ci": [2.8, 3.2], "gain": 0.0, "gain_ci": [0.0, 0.0]},
        {"n": 4, "gold": 3.2, "gold_ci": [3.0, 3.4], "gain": 0.2, "gain_ci": [0.1, 0.3]},
    ]
    assert build_curve_verdict(Facts({"curve": curve})).level == "good"
    curve[1]["gain_ci"] = [-0.1, 0.5]
    assert build_curve_verdict(Facts({"curve": curve})).answer == "No gain is shown."


def test_numbers_in_words() -> None:
    assert [say_share(x) for x in (0.7125, 1.0, 0.0, None)] == ["71.2%", "100.0%", "0.0%", "–"]
    assert [say_number(x) for x in (-1.239, -0.001, 1234.5, None)] == ["−1.24", "0.00", "1,234.50", "–"]
    assert [say_signed(x) for x in (0.5, -0.5, 0.001)] == ["+0.50", "−0.50", "0.00"]
    assert say_estimate(Estimate(value=0.5, low=0.4, high=0.6)) == "50.0% (40.0 to 60.0%)"
    assert say_estimate(Estimate(value=0.5, low=0.5, high=0.5)) == "50.0%"
    assert say_range(Estimate(value=0.1, low=-0.2, high=0.3), places=1) == "−0.2 to 0.3"
    assert say_lead(Estimate(value=-0.012, low=-0.03, high=0.006)) == "−1.2 points (−3.0 to +0.6)"
    assert say_lead(Estimate(value=0.012)) == "+1.2 points"
    assert [say_p(x) for x in (0.0421, 0.00001, None)] == ["0.042", "< 0.001", "–"]
    assert [say_seconds(x) for x in (1.94, 141.3, 7380.0)] == ["1.9 s", "2 min 21 s", "2 h 3 min"]
    assert [say_things(n, "reply", "replies") for n in (1, 2)] == ["1 reply", "2 replies"]
    assert [say_list(list(x)) for x in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert say_count(1234567.0) == "1,234,567"
    assert say_date("2026-12-01T09:05:00+01:00") == "1 December 2026, 09:05"
    assert say_date("yesterday") == "yesterday"


def test_what_is_no_number_is_not_there() -> None:
    for value in (True, "0.5", None, float("nan"), float("inf"), [0.5]):
        assert finite(value) is None
    facts = Facts({"a": 0.5, "a_ci": [0.4, None], "b": 1, "b_ci": (0, 2)})
    assert facts.estimate("a") == Estimate(value=0.5)
    assert facts.estimate("b") == Estimate(value=1, low=0, high=2)


def test_a_fall_that_could_be_chance_is_not_called_one() -> None:
    assert "over-optimised" in build_curve_verdict(Facts(build_bon())).sentence
    chance = build_bon() | {"decline_ci": [-0.31, 0.05]}
    assert "over-optimised" not in build_curve_verdict(Facts(chance)).sentence
