"""The story's parts: a head fitted as it should be, judged on what it never saw, and rankings that add up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from plaudit import demo as story
from plaudit.demo import Fit, HeldOut, Round, fit_direction, fit_head, open_run
from plaudit.errors import ConfigError, InternalError
from plaudit.formats import read_groups
from plaudit.group import Group, pair
from plaudit.render import Renderer
from plaudit.score import RewardModel
from speller import save_speller


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speller(tmp_path_factory.mktemp("speller"))


@pytest.fixture
def net(speller: Path) -> RewardModel:
    return RewardModel.load(speller, dtype="float32", device="cpu", new_head=True)


def rows_of(count: int, width: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    """Random rows off the origin, features of different scales."""
    random = np.random.default_rng(seed)
    return torch.from_numpy((random.normal(size=(count, width)) + 1 + shift) * np.linspace(0.1, 5, width))


def fit_slowly(better: torch.Tensor, worse: torch.Tensor, strength: float) -> Any:
    """The same regression written down from its definition, and left to a general minimiser.

    Weights on features of unit deviation, none of them along the mean row: found in a basis of the rest.
    """
    rows = np.concatenate([better, worse])
    scale = np.where(rows.std(0) > 0, rows.std(0), 1)
    basis = scipy.linalg.null_space((rows.mean(0) / scale)[None])
    features = (better.numpy() - worse.numpy()) / scale @ basis

    def loss(weights: Any) -> tuple[float, Any]:
        margins = features @ weights
        doubt = 1 / (1 + np.exp(margins))
        return (
            np.logaddexp(0, -margins).sum() + strength / 2 * weights @ weights,
            strength * weights - features.T @ doubt,
        )

    start = np.zeros(basis.shape[1])
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-11, "ftol": 1e-16})
    return basis @ found.x / scale


@pytest.mark.parametrize(("count", "width"), [(40, 6), (10, 50), (1, 3)])
@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_the_head_is_what_a_general_minimiser_finds(count: int, width: int, strength: float) -> None:
    better, worse = rows_of(count, width, 1, shift=0.3), rows_of(count, width, 2)
    expected = fit_slowly(better, worse, strength)
    found = fit_direction(better, worse, strength=strength).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_scores_are_put_around_zero_also_beside_a_feature_without_variance() -> None:
    better, worse = rows_of(12, 30, 1, shift=0.5), rows_of(12, 30, 2)
    for _ in range(2):
        scores = torch.cat([better, worse]) @ fit_direction(better, worse)
        assert abs(float(scores.mean())) < 1e-9 < float(scores.std())
        better[:, 4] = worse[:, 4] = 7.0


def test_more_penalty_is_a_smaller_head() -> None:
    better, worse = rows_of(12, 30, 1, shift=0.5), rows_of(12, 30, 2)
    sizes = [float(fit_direction(better, worse, strength=strength).norm()) for strength in (1, 10, 100, 1000)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_fit_that_does_not_arrive_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "NEWTON_STEPS", 1)
    with pytest.raises(InternalError, match="was not fitted in 1 steps"):
        fit_direction(rows_of(12, 30, 1, shift=0.5), rows_of(12, 30, 2))


def give_hidden(monkeypatch: pytest.MonkeyPatch, hidden: dict[tuple[int, int], torch.Tensor]) -> None:
    monkeypatch.setattr(story, "read_hidden", lambda net, rendered: hidden)


def coins(count: int, width: int = 200) -> dict[tuple[int, int], torch.Tensor]:
    """Hidden states of pairs that say nothing of which one is better."""
    generator = torch.Generator().manual_seed(5)
    return {
        (row, k): torch.randn(width, generator=generator, dtype=torch.float64) for row in range(count) for k in (0, 1)
    }


def pairs_of(count: int, *, per_prompt: int = 1) -> list[Group]:
    return [pair(f"Question {n // per_prompt}?", f"good {n}", f"bad {n}") for n in range(count)]


def count_right_in_sight(net: RewardModel, hidden: dict[tuple[int, int], torch.Tensor]) -> int:
    """How many of the comparisons that it was fitted to the head gets right."""
    weights = net.head.weight[0].double()
    return sum(bool((hidden[row, 0] - hidden[row, 1]) @ weights > 0) for row, k in hidden if k == 0)


def test_where_there_is_nothing_to_learn_held_out_is_a_coin_and_in_sight_is_not(
    net: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = coins(80)
    give_hidden(monkeypatch, hidden)
    [part] = fit_head(net, pairs_of(80)).held_out
    assert count_right_in_sight(net, hidden) > 72
    assert part.total == 80
    assert 28 <= part.right <= 52
    assert part.interval[0] < 0.5 < part.interval[1]


def test_twins_under_one_prompt_do_not_help_each_other(net: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = coins(80)
    # Each second pair is a copy of the one before it, under the same prompt: in sight of its twin it would be right.
    hidden |= {(row + 1, k): hidden[row, k] for row, k in hidden if row % 2 == 0}
    give_hidden(monkeypatch, hidden)
    [part] = fit_head(net, pairs_of(80, per_prompt=2)).held_out
    assert 24 <= part.right <= 56
    [part] = fit_head(net, pairs_of(80)).held_out
    assert part.right > 72


def test_what_can_be_learned_is_learned(net: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = coins(80)
    for (_, k), state in hidden.items():
        state[:40] += 1.0 - 2 * k
    give_hidden(monkeypatch, hidden)
    [part] = fit_head(net, pairs_of(80)).held_out
    assert part.right > 70
    assert part.interval[0] > 0.75
    assert not net.is_new


def test_each_comparison_is_judged_by_a_head_that_saw_neither_its_prompt_nor_its_answers(
    net: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = list(read_groups(story.STARTER / story.COMPARISONS))
    hidden = story.read_hidden(net, Renderer(net.tokenizer, context_length=1024).render(groups))
    claims = [(row, c.better, c.worse) for row, group in enumerate(groups) for c in group.comparisons()]
    names = {torch.cat([hidden[row, k], hidden[row, j]]).numpy().tobytes(): n for n, (row, k, j) in enumerate(claims)}
    assert len(names) == len(claims)
    fits: list[set[int]] = []

    def spy(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
        fits.append({names[torch.cat(rows).numpy().tobytes()] for rows in zip(better, worse, strict=True)})
        return fit_direction(better, worse)

    monkeypatch.setattr(story, "fit_direction", spy)
    fit_head(net, groups)
    *held_out, last = fits
    assert last == set(range(len(claims)))
    assert len(held_out) == len(claims)
    texts = [{groups[row].prompt[0]["content"], *(c.text for c in groups[row].completions)} for row, _, _ in claims]
    borrowed = 0
    for n, seen in enumerate(held_out):
        assert seen == {m for m in range(len(claims)) if not texts[n] & texts[m]}
        borrowed += len(claims) - len(seen) > 2
    assert borrowed == len(claims), "another question's answers stand under another prompt, too"


def test_kinds_are_told_apart_and_the_longer_answer_is_counted(
    net: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [
        pair("One?", "a long good answer", "short"),
        pair("Two?", "tiny", "quite a bad answer"),
        pair("Three?", "aaaa", "bbbb"),
        pair("Four?", "a b c d", "a long good answer"),
    ]
    give_hidden(monkeypatch, coins(4))
    first, second = fit_head(net, groups).held_out
    assert (first.against, first.total, first.longer) == ("a worse answer", 3, 1.5)
    assert (second.against, second.total, second.longer) == ("another question's answer", 1, 0.0)


def test_the_interval_is_wilsons() -> None:
    part = story._count_right("a worse answer", [(True, 1.0)] * 9 + [(False, 0.5)])
    z, p, n = 1.959963984540054, 0.9, 10
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    assert part == HeldOut(
        against="a worse answer", right=9, total=10, interval=pytest.approx((low, high)), longer=pytest.approx(9.5)
    )
    assert part.accuracy == 0.9


def test_hidden_states_are_those_of_each_answer_alone(net: RewardModel) -> None:
    groups = list(read_groups(story.STARTER / story.CANDIDATES))[:2]
    rendered = Renderer(net.tokenizer, context_length=1024).render(groups)
    found = story.read_hidden(net, rendered)
    assert set(found) == {(row, k) for row, group in enumerate(groups) for k in range(len(group.completions))}
    with net.plain_attention() as hf, torch.inference_mode():
        for (row, k), hidden in found.items():
            ids = torch.from_numpy(np.asarray(rendered[row].ids[k], np.int64))[None]
            alone = hf.base_model(input_ids=ids).last_hidden_state[0, -1].double()
            assert float((hidden - alone).abs().max()) < 1e-4


def test_the_starter_data_is_what_the_story_says() -> None:
    asked, answered = (list(read_groups(story.STARTER / name)) for name in (story.COMPARISONS, story.CANDIDATES))
    prompts = [group.prompt[0]["content"] for group in (*asked, *answered)]
    assert len(set(prompts)) == len(prompts) == 45
    preferred = {group.completions[c.better].text for group in asked for c in group.comparisons()}
    for group in asked:
        own = {c.better for c in group.comparisons()}
        assert len(own) == 1
        others = [c.worse for c in group.comparisons()]
        borrowed = [k for k in others if group.completions[k].text in preferred]
        assert (len(others), len(borrowed)) == (2, 1)
    used = {c.text for group in asked for c in group.completions}
    for group in answered:
        assert not used & {c.text for c in group.completions}
        assert len({c.text for c in group.completions}) == 8
        assert {c.margin for c in group.comparisons()} <= {None, 1.0, 2.0, 3.0}


def test_a_run_opens_where_nothing_is_and_again_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for run in (tmp_path / "new" / "run", tmp_path / "empty", tmp_path / "new" / "run"):
        assert open_run(run) == run
        for name in (story.COMPARISONS, story.CANDIDATES):
            assert (run / name).read_bytes() == (story.STARTER / name).read_bytes()


def test_a_run_is_in_the_cache_if_no_place_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path))
    assert open_run(None) == tmp_path / "demo"


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "years of work"},
        {"demo.json": '{"scenes": []}', "intro.mp3": ""},
        {"demo.json": "[1, 2]"},
        {"demo.json": "not JSON"},
        {"candidates.jsonl": "mine"},
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, files: dict[str, str]) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    for name, text in files.items():
        (run / name).write_text(text)
    with pytest.raises(ConfigError, match="is not the folder of a demo; name a new one with --out"):
        open_run(run)
    assert {path.name: path.read_text() for path in run.iterdir()} == files


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("here")
    with pytest.raises(ConfigError, match="is not the folder of a demo"):
        open_run(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "here"


class Told:
    """The story on the tiny model, told once."""

    def __init__(self, speller: Path, run: Path) -> None:
        self.run = open_run(run)
        net = RewardModel.load(speller, dtype="float32", device="cpu", new_head=True)
        self.fit: Fit = fit_head(net, story.read_comparisons(self.run))
        self.folder = story.save_model(net, self.run, self.fit)
        self.round: Round = story.rank_candidates(
            RewardModel.load(self.folder, dtype="float32", device="cpu"), self.run
        )
        self.rows = [json.loads(line) for line in (self.run / "scored.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def told(speller: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    yield Told(speller, tmp_path_factory.mktemp("story") / "run")


def test_rankings_are_the_scored_rows_best_first(told: Told) -> None:
    assert len(told.round.rankings) == len(told.rows) == 5
    for ranking, row in zip(told.round.rankings, told.rows, strict=True):
        assert ranking.prompt == row["prompt"][0]["content"]
        order = np.argsort(row["scores"])[::-1]
        assert [a.text for a in ranking.answers] == [row["completions"][k] for k in order]
        assert [a.score for a in ranking.answers] == [row["scores"][k] for k in order]
        assert [a.rating for a in ranking.answers] == [row["labels"][0]["ratings"][k] for k in order]
        assert ranking.answers[0].score > ranking.answers[-1].score


def test_agreement_with_the_author_is_counted_over_unequal_ratings(told: Told) -> None:
    agreeing = compared = 0
    for row in told.rows:
        ratings, scores = row["labels"][0]["ratings"], row["scores"]
        for i in range(8):
            for j in range(i):
                compared += ratings[i] != ratings[j]
                agreeing += (ratings[i] - ratings[j]) * (scores[i] - scores[j]) > 0
    assert (told.round.agreeing, told.round.compared) == (agreeing, compared)
    assert told.round.completions == 40
    assert told.round.total_tokens > told.round.unique_tokens > 0


def test_what_was_saved_scores_the_same_in_plain_transformers(told: Told) -> None:
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(told.folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(told.folder)
    assert told.round.difference < 1e-4
    for row in told.rows:
        for text, score in zip(row["completions"], row["scores"], strict=True):
            turns = [*row["prompt"], {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
            with torch.inference_mode():
                assert abs(float(model(input_ids=ids).logits[0, 0]) - score) < 1e-4


def test_what_was_saved_says_what_it_is(told: Told) -> None:
    card = json.loads((told.folder / "plaudit.json").read_text())
    assert card["demo"] == story.WARNING
    assert card["fit"]["comparisons"] == told.fit.comparisons == 80
    assert "head" not in card, "a fitted head is not a new one"


def test_a_difference_is_seen(told: Told) -> None:
    net = RewardModel.load(told.folder, dtype="float32", device="cpu")
    first = next(iter(read_groups(told.run / story.CANDIDATES)))
    shifted = [score + 0.25 for score in told.rows[0]["scores"]]
    assert story.compare_alone(net, first, shifted) == pytest.approx(0.25, abs=1e-3)


def test_an_answer_without_a_score_is_our_fault() -> None:
    row = {
        "prompt": [{"role": "user", "content": "?"}],
        "completions": ["a", ""],
        "scores": [1.0, None],
        "labels": [{"ratings": [1, 0]}],
        "unscored": [None, "empty completion"],
    }
    with pytest.raises(InternalError, match="empty completion"):
        story._rank(row)


def test_results_lie_beside_the_model(told: Told) -> None:
    story.note_results(told.run, {"round": {"agreeing": 1}})
    assert json.loads((told.run / story.MARK).read_text())["round"] == {"agreeing": 1}
    assert open_run(told.run) == told.run


def test_commands_hold_for_folders_with_odd_names() -> None:
    import shlex

    run = Path('/my runs/it\'s "one"/naïve 😀')
    score, doctor, python = (shlex.split(command) for command in story.suggest_commands(run))
    assert score == ["plaudit", "score", f"{run}/model", f"{run}/candidates.jsonl", "-o", f"{run}/again.jsonl"]
    assert doctor == ["plaudit", "doctor", f"{run}/model"]
    assert python[:2] == ["python", "-c"]
    loaded: list[str] = []

    class Fake:
        @staticmethod
        def load(name: str) -> Any:
            loaded.append(name)
            return type("Model", (), {"score": staticmethod(lambda prompt, answers: [0.0] * len(answers))})

    exec(python[2].replace("import plaudit; ", ""), {"plaudit": Fake, "print": lambda *_: None})
    assert loaded == [f"{run}/model"]
