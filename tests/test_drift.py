"""Drift is seen where it is and not where it is not, and the arithmetic is that of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs import pair_rows
from plaudit.drift import (
    MOST_A_GROUP,
    Distances,
    Fall,
    Hidden,
    bound_tail,
    distance_from,
    draw_groups,
    judge_drift,
    measure_distances,
    measure_fall,
    read_hidden,
    shrink_covariance,
)
from plaudit.group import Completion, Group, pair
from plaudit.measure import Table, TableBuilder
from plaudit.score import RewardModel, Scorer, ScoreSettings


def made(rows: np.ndarray, a_prompt: int = 2) -> Hidden:
    return Hidden(state_ND=rows, prompt_N=np.arange(len(rows)) // a_prompt)


def drawn(seed: int, n: int, d: int = 24, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mixing + shift * mixing[0] * d**0.5


def test_the_covariance_is_that_of_ledoit_and_wolf() -> None:
    from scipy import stats  # noqa: F401 (scikit-learn wants it first where several OpenMPs are about)

    covariance = pytest.importorskip("sklearn.covariance")
    for n, d in ((40, 24), (300, 24), (30, 60)):
        rows = drawn(1, n, d)
        assert shrink_covariance(rows) == pytest.approx(covariance.ledoit_wolf(rows)[0], rel=1e-9)


def test_the_distance_is_mahalanobis() -> None:
    rows = drawn(2, 200)
    mean, spread = rows.mean(axis=0), shrink_covariance(rows)
    slow = [np.sqrt((row - mean) @ np.linalg.inv(spread) @ (row - mean) / len(mean)) for row in rows]
    assert distance_from(rows, mean, spread) == pytest.approx(slow)


def test_one_answer_many_times_over_is_no_covariance_and_no_crash() -> None:
    rows = np.ones((80, 8))
    found = measure_distances(made(rows), made(rows), seed=0)
    assert found is not None
    assert found.share == 0


def test_of_data_like_the_reference_as_many_are_far_as_is_said() -> None:
    shares, covered = [], 0
    for seed in range(60):
        found = measure_distances(made(drawn(seed, 400)), made(drawn(1000 + seed, 400)), seed=seed)
        assert found is not None and found.share_ci is not None
        shares.append((found.share, found.share_99))
        covered += found.share_ci[0] > 0.10
    mean, mean_99 = np.mean(shares, axis=0)
    assert mean == pytest.approx(0.05, abs=0.012)
    assert mean_99 == pytest.approx(0.01, abs=0.008)
    assert covered == 0, "nothing like the reference is called drift"


def test_data_from_elsewhere_are_far() -> None:
    found = measure_distances(made(drawn(1, 300, shift=3.0)), made(drawn(2, 400)), seed=0)
    assert found is not None and found.share_ci is not None
    assert found.share > 0.9
    assert found.share_ci[0] > 0.8
    assert found.median > 1.5 * found.reference_median
    assert found.as_json()["expected"] == pytest.approx(0.05)


def test_a_mixture_is_measured_by_its_share() -> None:
    rows = np.concatenate([drawn(1, 300), drawn(3, 100, shift=4.0)])
    found = measure_distances(made(rows), made(drawn(2, 600)), seed=0)
    assert found is not None
    assert found.share == pytest.approx(0.25 + 0.75 * 0.05, abs=0.04)
    assert found.share_99 == pytest.approx(0.25 + 0.75 * 0.01, abs=0.04)


def test_too_few_answers_tell_nothing() -> None:
    assert measure_distances(made(drawn(1, 100)), made(drawn(2, 50)), seed=0) is None
    assert measure_distances(made(drawn(1, 1)), made(drawn(2, 500)), seed=0) is None


def test_groups_are_drawn_by_lot_and_cut() -> None:
    many = Group(prompt="p", completions=tuple(Completion(content=f"w{n}") for n in range(9)))
    found = draw_groups([many] * 50, seed=1, most=40)
    assert [len(group.completions) for group in found] == [MOST_A_GROUP] * 10
    pairs = [pair(f"q{n}", "a", "b") for n in range(500)]
    first = draw_groups(iter(pairs), seed=1, most=100)
    assert len(first) == 50
    assert first == draw_groups(iter(pairs), seed=1, most=100)
    assert first != draw_groups(iter(pairs), seed=2, most=100)
    assert max(int(str(group.prompt)[1:]) for group in first) > 250


def test_hidden_states_are_what_the_head_reads(tiny_reward: Path) -> None:
    net = RewardModel.load(tiny_reward, dtype="float32", device="cpu")
    groups = [pair(row["prompt"], row["chosen"], row["rejected"]) for row in pair_rows(150)]
    groups.append(pair("w7", "", "w9"))
    heard: list[tuple[int, int]] = []
    found = read_hidden(Scorer(net, ScoreSettings(budget=256)), groups, lambda *said: heard.append(said))
    assert found.state_ND.shape == (301, 32)
    assert heard[-1] == (151, 151)
    assert heard == sorted(heard)
    assert len(set(found.prompt_N.tolist())) == 151
    with torch.inference_mode():
        scores = net.head(torch.from_numpy(found.state_ND).float()).squeeze(-1).tolist()
    plain = [s for one in net.score_groups(groups) for s in one.scores if s is not None]
    assert sorted(scores) == pytest.approx(sorted(plain), rel=1e-4, abs=1e-4)


def table(right: float, n: int, seed: int) -> Table:
    rng, builder = np.random.default_rng(seed), TableBuilder(seed=0)
    for k in range(n):
        builder.add(pair(f"q{k}", "aa", "bb"), [1.0, 0.0] if rng.random() < right else [0.0, 1.0])
    return builder.finish()


def test_the_interval_of_a_fall_is_that_of_two_shares() -> None:
    found = measure_fall(table(0.6, 900, 1), table(0.75, 700, 2))
    assert found.new is not None and found.reference is not None and found.difference_ci is not None
    spread = 1.96 * np.sqrt(found.new * (1 - found.new) / 900 + found.reference * (1 - found.reference) / 700)
    assert found.difference == pytest.approx(found.new - found.reference)
    assert found.difference_ci == pytest.approx((found.difference - spread, found.difference + spread), abs=0.006)
    assert (found.n, found.reference_n) == (900, 700)
    assert found.is_sure


def test_without_labels_there_is_no_fall() -> None:
    builder = TableBuilder(seed=0)
    builder.add(Group(prompt="q", completions=(Completion(content="a"),)), [1.0])
    found = measure_fall(builder.finish(), table(0.75, 100, 2))
    assert (found.new, found.difference, found.difference_ci, found.is_sure) == (None, None, None, False)
    assert found.could_hide


def test_unlabelled_groups_are_no_evidence_of_a_fall() -> None:
    """One wrong labelled group among 200: the other 199 say nothing of accuracy."""
    builder = TableBuilder(seed=0)
    builder.add(pair("q", "aa", "bb"), [0.0, 1.0])
    for k in range(199):
        builder.add(Group(prompt=f"u{k}", completions=(Completion(content="a"), Completion(content="b"))), [1.0, 0.0])
    found = measure_fall(builder.finish(), table(0.77, 1000, 3))
    assert found.difference is not None and found.difference < -0.7 and not found.is_sure
    assert found.difference_ci is not None and found.difference_ci[1] > 0
    retrain, verdict, _ = judge_drift(found, None)
    assert retrain == "no" and found.could_hide
    assert verdict.endswith("could go unseen (labelled prompts: 1; about 130 are needed).")
    assert (found.prompts, found.reference_prompts) == (1, 1000)


@pytest.mark.parametrize(("wrong", "is_sure"), [(2, False), (4, True)])
def test_a_fall_of_few_prompts_is_judged_by_exact_intervals(wrong: int, is_sure: bool) -> None:
    builder = TableBuilder(seed=0)
    for k in range(wrong):
        builder.add(pair(f"q{k}", "aa", "bb"), [0.0, 1.0])
    assert measure_fall(builder.finish(), table(0.77, 1000, 3)).is_sure is is_sure


def test_a_threshold_of_few_reference_answers_is_known_roughly() -> None:
    """Of the reference's like, 97.5 of 100 such thresholds have no more beyond them than is said."""
    rng = np.random.default_rng(4)
    for num in (30, 200):
        value = np.sort(rng.random((20_000, num)), axis=1)
        beyond = 1 - np.quantile(value, 0.95, axis=1, method="higher")
        assert np.quantile(beyond, 0.975) == pytest.approx(bound_tail(num, num), rel=0.03)
    assert bound_tail(400, 200) > bound_tail(400, 400), "two answers of a prompt are less than two prompts"


def test_far_answers_have_to_be_more_than_the_threshold_allows() -> None:
    few = replace(far(0.2), expected_high=0.18)
    assert far(0.2).is_far and not few.is_far and not far(0.13).is_far and far(0.131).is_far
    assert judge_drift(fall(-0.05, 0.06), few)[0] == "no"


def fall(difference: float, reach: float) -> Fall:
    return Fall(
        new=0.7 + difference, reference=0.7, difference=difference, n=500, reference_n=500,
        difference_ci=(difference - reach, difference + reach),
    )  # fmt: skip


def far(share: float) -> Distances:
    return Distances(
        share=share, share_ci=(share - 0.03, share + 0.03), share_99=share / 2, share_99_ci=None, n=500,
        reference_n=500, median=1.0, reference_median=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fallen", "found", "retrain", "said"),
    [
        (fall(-0.10, 0.05), far(0.05), "yes", "Retrain: "),
        (fall(-0.10, 0.05), None, "yes", "Retrain: "),
        (fall(-0.01, 0.005), far(0.05), "no", "No need to retrain: the new data are like"),
        (fall(-0.05, 0.06), far(0.40), "label", "Label some of the new data"),
        (fall(0.00, 0.04), far(0.40), "no", "No need to retrain yet: many answers are unlike"),
        (fall(0.00, 0.20), far(0.05), "no", "No sign of drift; but with so few labels"),
        (fall(0.00, 0.04), far(0.12), "no", "No need to retrain: the new data are like"),
    ],
)
def test_the_verdict_is_plain(fallen: Fall, found: Distances | None, retrain: str, said: str) -> None:
    what, verdict, reasons = judge_drift(fallen, found)
    assert what == retrain
    assert verdict.startswith(said)
    assert "500 new comparisons" in reasons[0]
    assert len(reasons) == 2
