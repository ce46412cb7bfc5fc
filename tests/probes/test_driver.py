"""driver.py, sample.py, trial.py, result.py: figures against a computation by hand, what is counted or refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from critics import Critic, good_answers, write_groups
from plaudit import ConfigError, DataError, Group, pair
from plaudit.group import Completion, Ratings
from plaudit.measure.significance import skew_proof_reach
from plaudit.probes import (
    PROBES,
    Expects,
    Probe,
    ProbeReport,
    ProbeSettings,
    Verdict,
    draw_prompts,
    find_probes,
    measure_probes,
)
from plaudit.score import RewardModel, Scorer, Scores, ScoreSettings
from speller import save_speller

GROUPS = write_groups(40)


class ByText:
    """Scores every completion by a function of its text; keeps what it was given."""

    def __init__(self, score: Callable[[str], float | None]) -> None:
        self.score, self.seen = score, list[Group]()

    def score_groups(self, groups: Iterable[Group]) -> Iterator[Scores]:
        for group in groups:
            self.seen.append(group)
            scores = tuple(self.score(completion.text) for completion in group.completions)
            yield Scores(scores=scores, unscored=tuple(None if s is not None else "too long" for s in scores))


def roughly_length(text: str) -> float:
    return len(text) / 100 + random.Random(text).gauss(0, 1)


def probe_one(name: str, score: Callable[[str], float | None], groups: Iterable[Group], **rest: int) -> ProbeReport:
    return measure_probes(ByText(score), groups, settings=ProbeSettings(only=(name,), **rest))


def test_figures_are_those_by_hand() -> None:
    report = probe_one("upper_case", roughly_length, GROUPS)
    [found] = report
    before = np.array([roughly_length(g.completions[0].text) for g in GROUPS])
    other = np.array([roughly_length(g.completions[1].text) for g in GROUPS])
    after = np.array([roughly_length(g.completions[0].text.upper()) for g in GROUPS])
    spread = np.sqrt(np.mean((before - other) ** 2 / 2))
    shift = (after - before) / spread
    assert report.spread == pytest.approx(spread)
    assert report.spread_of == "within prompts"
    assert found.num_prompts == report.num_prompts == report.num_read == 40
    assert found.shift is not None and found.shift.interval is not None and found.flips is not None
    assert found.shift.mean == pytest.approx(shift.mean())
    boot = stats.bootstrap((shift,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0))
    assert found.shift.interval == pytest.approx(tuple(boot.confidence_interval), abs=0.1 * shift.std())
    half = skew_proof_reach(40, 0.05) * shift.std(ddof=1) / 40**0.5
    assert found.family_interval == pytest.approx((shift.mean() - half, shift.mean() + half))
    assert found.flips.mean == pytest.approx(np.mean((before > other) != (after > other)))


def test_a_worse_answer_that_wins_is_a_flip_and_a_tie_is_half_of_one() -> None:
    report = probe_one("empty_flattery", lambda text: float("!" in text) + len(text) % 2, GROUPS)
    [found] = report
    gaps = [e.score_after - e.score_before for e in found.examples]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0
    assert found.flips is not None and 0.5 < found.flips.mean < 1
    equal = probe_one("echo", lambda text: 1.0 if "Question" in text else float(len(text) > 400), GROUPS)
    assert equal.results[0].flips is not None and 0.4 < equal.results[0].flips.mean <= 1


def test_an_answer_and_all_of_its_edits_are_one_group() -> None:
    scorer = ByText(roughly_length)
    report = measure_probes(scorer, GROUPS[:12])
    main, recast = scorer.seen[:24:2], scorer.seen[1:24:2]
    assert {g.prompt for g in main} == {g.prompt for g in GROUPS[:12]}
    assert all(g.prompt == "" and len(g.completions) == 2 for g in recast)
    applied = sum(r.num_prompts for r in report if not r.probe.staged and r.probe.name != "template")
    assert sum(len(g.completions) - 2 for g in main) == applied > 12 * 20
    assert all(g.labels == () for g in scorer.seen)
    # Of the questions of our own, those of one probe come with a user's claim; the others differ in the good answer.
    assert len(scorer.seen) - 24 == 3 * 40


def test_the_order_of_the_data_changes_nothing_and_the_seed_does() -> None:
    first, again, other = (
        measure_probes(ByText(roughly_length), groups, settings=ProbeSettings(limit=15, seed=seed)).as_json()
        for groups, seed in ((GROUPS, 0), (GROUPS[::-1], 0), (GROUPS, 1))
    )
    assert first == again != other
    assert first["prompts"] == 15 and first["groups_read"] == 40


def test_a_prompt_is_probed_once_and_the_preferred_answer_is_edited() -> None:
    texts = ("The worst of all.", "The best of all.", "The second of all.", "The best of all.")
    rated = Group(
        prompt="Which?",
        completions=tuple(Completion(content=t) for t in texts),
        labels=(Ratings(ratings=(1, 4, 3, 4)),),
    )
    scorer = ByText(roughly_length)
    measure_probes(scorer, [rated, rated], settings=ProbeSettings(only=("lower_case",)))
    [group] = scorer.seen
    assert [c.text for c in group.completions] == [texts[1], texts[0], texts[2], texts[1].lower()]


def test_turns_keep_their_form() -> None:
    call = ({"role": "assistant", "content": "Wait."}, {"role": "user", "content": "So?"})
    turns = (*call, {"role": "assistant", "content": "It is Lima.", "name": "a"})
    group = Group(prompt=({"role": "user", "content": "Which?"},), completions=(Completion(content=turns),))
    scorer = ByText(roughly_length)
    measure_probes(scorer, [group], settings=ProbeSettings(only=("echo", "template")))
    main, recast = scorer.seen
    assert main.completions[1].content == (*call, {"role": "assistant", "content": "So?", "name": "a"})
    assert recast.completions[0].text == "Human: Which?\n\nAssistant: Wait.\n\nHuman: So?\n\nAssistant: It is Lima."


def test_what_has_no_score_is_counted_and_is_no_zero() -> None:
    report = probe_one("padding", lambda text: None if len(text) > 900 else roughly_length(text), GROUPS)
    [found] = report
    lengths = [len(e.after) for e in found.examples]
    assert found.num_unscored > 0
    assert found.num_prompts + found.num_unscored == 40
    assert max(lengths) <= 900


def test_what_does_not_apply_is_counted() -> None:
    groups = [pair(f"Question {n}?", "Short.", "Shorter yet.") for n in range(20)]
    report = measure_probes(ByText(roughly_length), groups)
    by_name = {result.probe.name: result for result in report}
    assert (by_name["truncation"].num_prompts, by_name["truncation"].num_skipped) == (0, 20)
    assert by_name["truncation"].shift is None and by_name["truncation"].verdict is Verdict.UNCLEAR
    told = by_name["truncation"].as_json()
    assert (told["shift"], told["shift_ci"], told["flip_rate"], told["examples"]) == (None, None, None, [])


def test_groups_without_a_prompt_or_an_answer_are_said() -> None:
    bare = Group(prompt="", completions=(Completion(content="Human: a\n\nAssistant: b"),))
    empty = pair("Which?", "", " ")
    report = measure_probes(ByText(roughly_length), [bare, empty, *GROUPS])
    assert report.num_prompts == 40
    assert any(note.startswith("2 of 42 groups have no prompt") for note in report.notes)
    with pytest.raises(DataError, match="2 groups came, none of them with a prompt and an answer in text"):
        measure_probes(ByText(roughly_length), [bare, empty])


def test_single_answers_have_a_spread_and_no_order_to_turn() -> None:
    groups = [Group(prompt=g.prompt, completions=g.completions[:1]) for g in GROUPS]
    report = probe_one("bold", roughly_length, groups)
    scores = [roughly_length(g.completions[0].text) for g in groups]
    assert report.spread == pytest.approx(np.std(scores, ddof=1))
    assert report.spread_of == "across prompts"
    assert report.results[0].flips is None


def test_one_score_for_everything_is_no_unit() -> None:
    report = measure_probes(ByText(lambda text: 1.0), GROUPS)
    assert {result.verdict for result in report} == {Verdict.UNCLEAR}
    assert all(result.shift is None for result in report)
    assert any("the same score" in note for note in report.notes)
    json.dumps(report.as_json(), allow_nan=False)


def test_the_json_has_its_keys_and_short_texts() -> None:
    long = [pair(str(g.prompt) * 10, g.completions[0].text * 5, g.completions[1].text) for g in GROUPS]
    told = measure_probes(Critic(good_answers(long)), long).as_json()
    json.dumps(told, allow_nan=False)
    assert set(told) == {"probes", "spread", "spread_of", "prompts", "groups_read", "notes"}
    assert [probe["name"] for probe in told["probes"]] == list(PROBES)
    for probe in told["probes"]:
        assert set(probe) == {
            "name", "about", "expects", "n", "skipped", "unscored", "shift", "shift_ci", "verdict_ci", "flip_rate",
            "flip_rate_ci", "verdict", "examples",
        }  # fmt: skip
        assert 0 < len(probe["examples"]) <= 3 or not probe["n"]
        for example in probe["examples"]:
            assert max(map(len, (example["prompt"], example["before"], example["after"]))) <= 402
            assert example["before"] != example["after"]


def test_names_and_numbers_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"probe 'bullet' came, one of bold, bullets, .* was needed"):
        find_probes(["bullet"])
    with pytest.raises(ConfigError, match="limit 0"):
        ProbeSettings(limit=0)
    with pytest.raises(ConfigError, match="probe 'x'"):
        draw_prompts(GROUPS, ProbeSettings(only=("x",)))


def test_probes_of_the_callers_own_are_measured_beside_the_others() -> None:
    mine = Probe(
        name="sigh", about="a sigh before it", expects=Expects.SAME, edit=lambda case, _: f"Sigh. {case.answer}"
    )
    settings = ProbeSettings(only=("padding",), more=(mine,))
    padding, sigh = measure_probes(ByText(lambda text: float(text.startswith("Sigh."))), GROUPS, settings=settings)
    assert (padding.probe.name, sigh.probe.name, sigh.num_prompts) == ("padding", "sigh", len(GROUPS))
    assert all(example.after == f"Sigh. {example.before}" for example in sigh.examples)
    for taken in ((mine, mine), (replace(mine, name="padding"),)):
        with pytest.raises(ConfigError, match="name it otherwise"):
            ProbeSettings(more=taken)


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = save_speller(tmp_path_factory.mktemp("probed") / "model", kind="classifier", context=4096)
    return RewardModel.load(folder, dtype="float32")


def test_a_real_model_is_probed_and_shares_what_answers_share(speller: RewardModel) -> None:
    groups = write_groups(12)
    scorer = Scorer(speller, ScoreSettings())
    watched: list[tuple[int, int]] = []
    report = measure_probes(
        scorer, groups, settings=ProbeSettings(limit=12), watch=lambda done, total: watched.append((done, total))
    )
    assert watched[-1] == (12 + 12 + 36, 60)
    assert scorer.tally.sharing > 1.5
    by_name = {result.probe.name: result for result in report}
    for name in ("padding", "upper_case", "truncation", "agreement", "template"):
        for example in by_name[name].examples:
            prompt = "" if name == "template" else example.prompt
            [alone] = speller.score(prompt, [example.after])
            [before] = speller.score(example.prompt, [example.before])
            assert example.score_after == pytest.approx(alone, rel=1e-4, abs=1e-4)
            assert example.score_before == pytest.approx(before, rel=1e-4, abs=1e-4)


def test_real_answers_are_probed(data_folder: Path, speller: RewardModel) -> None:
    import plaudit

    groups = list(plaudit.read(data_folder / "train_oasst.jsonl.gz"))
    sample = draw_prompts(groups, ProbeSettings())
    assert sample.num_read == 610 and len(sample.rows) == 172
    report = measure_probes(ByText(roughly_length), groups)
    by_name = {result.probe.name: result for result in report}
    assert sum(result.num_prompts >= 100 for result in report) >= 20
    assert by_name["padding"].verdict is by_name["restating"].verdict is Verdict.BIASED_UP
