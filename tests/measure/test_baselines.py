"""Baselines by hand, words against scikit-learn, and alarms that sound when, and only when, something is planted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from plaudit.formats import read_groups
from plaudit.group import Completion, Group, Ranking, Tie, pair
from plaudit.measure import (
    Table,
    build_table,
    find_worst,
    measure_accuracy,
    measure_baselines,
    measure_length_gaps,
    measure_subsets,
)
from plaudit.measure.accuracy import count_right
from plaudit.measure.baselines import _SAYINGS, Baseline, _raise_alarms
from plaudit.measure.subsets import GAP_EDGES
from plaudit.measure.words import RIDGE, _build_differences, _learn, score_words

WORDS = ["tree", "pack", "leaf", "score", "group", "label", "round", "judge", "prompt", "answer", "token", "model"]


def rows(num: int, seed: int, sign: str = "") -> list[Group]:
    """Pairs of random words; the better answer holds `sign`."""
    rng = np.random.default_rng(seed)

    def answer() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(5, 30)))

    return [pair(f"q{n}", f"{answer()} {sign}", answer(), subset="ab"[n % 2]) for n in range(num)]


def scored(groups: list[Group], right: float, seed: int = 0) -> Table:
    """Scores that are right so often."""
    rng = np.random.default_rng(seed)
    return build_table(groups, [[1.0, 0.0] if rng.random() < right else [0.0, 1.0] for _ in groups])


def test_rules_are_what_they_are_called() -> None:
    groups = [pair("q1", "long answer", "short"), pair("q2", "a", "- b\n- c"), pair("q3", "same", "size")]
    table = build_table(groups, [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = measure_baselines(table)
    accuracies = {name: one.accuracy for name, one in found.baselines.items()}
    assert accuracies == {"longest": 0.5, "shortest": 0.5, "most_lists": pytest.approx(1 / 3), "random": 0.5}
    np.testing.assert_array_equal(found.right_C["longest"], [1.0, 0.0, 0.5])
    np.testing.assert_array_equal(found.right_C["shortest"], [0.0, 1.0, 0.5])
    np.testing.assert_array_equal(found.right_C["most_lists"], [0.5, 0.0, 0.5])
    assert found.baselines["longest"].lead == pytest.approx(2 / 3 - 0.5)
    assert found.notes == ("no bag of words was asked: it needs 100 labelled comparisons of 10 prompts to learn from",)
    assert list(found.as_json()) == ["longest", "shortest", "most_lists", "random"]
    assert found.as_json()["random"]["accuracy_ci"] == [0.5, 0.5]


def test_a_planted_word_is_a_leak_and_no_word_is_none() -> None:
    leaking, clean = (measure_baselines(scored(rows(600, 1, sign), 0.8)) for sign in ("certainly", ""))
    words = leaking.baselines["bag_of_words"]
    assert words.accuracy is not None and words.accuracy > 0.97 and words.lead is not None and words.lead < -0.1
    assert leaking.alarms[0].startswith("which words an answer has tells the better one, on prompts that were not")
    assert any("the model is worse than a bag of words (" in alarm for alarm in leaking.alarms)
    accuracy = clean.baselines["bag_of_words"].accuracy
    assert accuracy is not None and abs(accuracy - 0.5) < 0.08 and clean.alarms == ()


def test_a_model_no_better_than_guessing_is_told_so() -> None:
    found = measure_baselines(scored(rows(400, 2), 0.5))
    assert any("not clearly better than guessing (50.0%): its lead is" in alarm for alarm in found.alarms)
    longer = [pair(f"q{n}", "a long answer here", "short") for n in range(300)]
    found = measure_baselines(scored(longer, 0.7))
    assert any(alarm.startswith("the longer answer is the better one in 100.0%") for alarm in found.alarms)


def test_leads_are_differences_on_the_same_draws() -> None:
    """A model that is right where the longest is has a lead of nothing, as far as 200 prompts can tell."""
    groups = rows(200, 3)
    table = build_table(groups, [[float(len(c.text)) for c in g.completions] for g in groups])
    found = measure_baselines(table).baselines
    assert found["longest"].lead == 0.0 and found["longest"].lead_p == 1.0
    most = 1 - 0.025 ** (1 / 200)  # so rare could prompts be on which they differ
    assert found["longest"].lead_ci == pytest.approx((-most, most))
    assert found["longest"].accuracy == measure_accuracy(table).accuracy
    assert found["longest"].accuracy_ci == measure_accuracy(table).accuracy_ci
    assert found["shortest"].accuracy == pytest.approx(1 - (found["longest"].accuracy or 0))


@pytest.mark.parametrize(("num", "is_shown"), [(2, False), (5, False), (6, True)])
def test_a_lead_over_guessing_takes_six_prompts(num: int, is_shown: bool) -> None:
    found = measure_baselines(build_table(rows(num, 3), [[1.0, 0.0]] * num))
    lead = found.baselines["random"]
    assert lead.lead == 0.5 and lead.lead_ci is not None and (lead.lead_ci[0] > 0) is is_shown
    alarm = "not clearly better than guessing"
    assert any(alarm in one for one in found.alarms) is not is_shown
    assert all(one.endswith("at least 6 are needed") for one in found.alarms if alarm in one)


@pytest.mark.parametrize(("num", "is_leak"), [(5, False), (6, True)])
def test_labels_of_few_prompts_do_not_leak(num: int, is_leak: bool) -> None:
    longer = [pair(f"q{n}", "a long answer here", "short") for n in range(num)]
    found = measure_baselines(build_table(longer, [[1.0, 0.0]] * num))
    assert found.baselines["longest"].accuracy == 1.0
    assert any("had without reading" in one for one in found.alarms) is is_leak


def test_words_are_weighed_as_scikit_learn_weighs_them() -> None:
    table = scored(rows(300, 4, "certainly"), 1.0)
    difference = _build_differences(table, np.arange(300))
    weights = _learn(difference)
    flip = np.where(np.arange(300) % 2, 1.0, -1.0)
    model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=2000)
    model.fit(difference.multiply(flip[:, None]).tocsr(), flip)
    np.testing.assert_allclose(difference @ weights, difference @ model.coef_[0], atol=2e-3)


def test_a_prompt_has_no_part_in_what_its_answers_score() -> None:
    groups = rows(200, 5, "certainly")
    odd = pair("odd", "zebra " * 3, "yak " * 3)
    texts = [odd, *(pair("odd", "zebra", "yak") for _ in range(50)), *groups]
    score_N = score_words(build_table(texts, [[0.0, 0.0]] * len(texts)))
    assert score_N is not None
    # Only the odd prompt has these words: on its own labels alone would they get a weight.
    np.testing.assert_array_equal(score_N[:102], 0.0)
    same = score_words(build_table(texts, [[0.0, 0.0]] * len(texts)))
    np.testing.assert_array_equal(score_N, same)


def test_of_many_comparisons_some_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.measure.words.MOST_COMPARISONS", 150)
    monkeypatch.setattr("plaudit.measure.words._CHUNK", 64)
    table = scored(rows(600, 6, "certainly"), 1.0)
    score_N = score_words(table)
    assert score_N is not None and count_right(table, score_N, np.arange(600)).mean() > 0.95


def test_few_comparisons_or_few_prompts_are_not_learned_from() -> None:
    assert score_words(scored(rows(99, 7), 1.0)) is None
    one_prompt = [pair("q", f"a {n}", f"b {n}") for n in range(300)]
    assert score_words(scored(one_prompt, 1.0)) is None
    nothing = measure_baselines(build_table([], []))
    assert nothing.notes == () == nothing.alarms and nothing.baselines["random"].accuracy_ci is None


def test_subsets_are_the_parts_of_the_whole() -> None:
    groups = rows(200, 8)
    groups.append(Group(prompt="t", completions=groups[0].completions, labels=(Tie(tie=(0, 1)),), subset="c"))
    table = scored(groups, 0.7)
    baselines = measure_baselines(table)
    found = measure_subsets(table, baselines=baselines)
    assert list(found) == ["a", "b", "c"]
    assert sum(one.n for one in found.values()) == measure_accuracy(table).n == 200 and found["c"].ties == 1
    for name in ("a", "b"):
        mask = table.subset_C == table.subsets.index(name)
        assert found[name].accuracy == measure_accuracy(table, mask=mask).accuracy
        longest = count_right(table, table.length_N.astype(float), mask)
        assert found[name].baselines["longest"] == pytest.approx(longest.mean())
        assert set(found[name].baselines) == set(baselines.baselines)
    assert found["c"].accuracy is None and found["c"].baselines == {} and found["c"].as_json()["n"] == 0
    assert find_worst(found) == min(("a", "b"), key=lambda name: found[name].accuracy or 0)
    assert find_worst({"a": found["a"]}) is None


def test_length_gaps_show_a_scorer_that_reads_only_length() -> None:
    rng = np.random.default_rng(9)
    groups = [pair(f"q{n}", *("x" * k for k in rng.integers(1, 100, 2))) for n in range(500)]
    table = build_table(groups, [[float(len(c.text)) for c in g.completions] for g in groups])
    gaps = measure_length_gaps(table)
    assert [(g.low, g.high) for g in gaps] == list(pairwise(GAP_EDGES))
    assert sum(g.n for g in gaps) == 500
    assert [g.accuracy for g in gaps[:3]] == [0.0] * 3 and [g.accuracy for g in gaps[4:]] == [1.0] * 3
    by_hand = [len(g.completions[0].text) - len(g.completions[1].text) for g in groups]
    shares = [gap / max(len(c.text) for c in g.completions) for gap, g in zip(by_hand, groups, strict=True)]
    assert gaps[-1].n == sum(share >= 0.5 for share in shares)
    empty = build_table([pair("q", "", "")], [[1.0, 0.0]])
    assert [g.n for g in measure_length_gaps(empty)] == [0, 0, 0, 1, 0, 0, 0]


def test_rankings_have_baselines_too() -> None:
    completions = tuple(Completion(content="x" * k) for k in (9, 5, 1))
    group = Group(prompt="q", completions=completions, labels=(Ranking(order=(0, 1, 2)),))
    found = measure_baselines(build_table([group], [[1.0, 2.0, 3.0]]))
    assert found.n == 3 and found.baselines["longest"].accuracy == 1.0 and found.baselines["longest"].lead == -1.0


@pytest.mark.parametrize(("name", "longest", "words"), [("train_arena_bench", (0.62, 0.65), (0.68, 0.75))])
def test_real_data_are_as_they_were_measured(
    data_folder: Path, name: str, longest: tuple[float, float], words: tuple[float, float]
) -> None:
    groups = list(read_groups(data_folder / f"{name}.jsonl.gz"))
    found = measure_baselines(scored(groups, 0.75)).baselines
    for one, (low, high) in (("longest", longest), ("bag_of_words", words)):
        accuracy = found[one].accuracy
        assert accuracy is not None and low < accuracy < high


@pytest.mark.parametrize(("low", "is_raised"), [(0.5, False), (0.501, True)])
def test_a_label_leak_takes_an_interval_above_one_half(low: float, is_raised: bool) -> None:
    [name, *_] = _SAYINGS
    baseline = Baseline(
        accuracy=0.95, accuracy_ci=(low, 1.0), lead=0.0, lead_ci=None, lead_p=None, discordant_prompts=0
    )
    assert bool(_raise_alarms({name: baseline})) is is_raised
