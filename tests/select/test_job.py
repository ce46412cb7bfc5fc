"""Files in, files out: everything is written or counted, twice the same, and the study of best-of-n in its folder."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plaudit import ConfigError, DataError, InputError
from plaudit.select import BonSettings, SelectSettings, select_rows, study_best_of_n
from plaudit.select.curve import Curve, measure_curve
from plaudit.select.sample import Sample


def sample(path: Path, groups: int = 40, num: int = 8, **more: Any) -> list[dict[str, Any]]:
    """Scores that follow gold, more loosely the higher they are."""
    rng = random.Random(1)
    rows = []
    for g in range(groups):
        gold = [round(rng.gauss(0, 1), 3) for _ in range(num)]
        scores = [round(value + rng.gauss(0, 0.5), 3) for value in gold]
        texts = [f"answer {k} of {g}" + " and more" * rng.randrange(9) for k in range(num)]
        rows.append({"id": f"q{g}", "prompt": f"Question {g}?", "completions": texts, "scores": scores, **more})
        rows[-1]["gold_scores"] = gold
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_best_is_the_best_of_each_and_how_it_moved_is_said(tmp_path: Path) -> None:
    rows = sample(tmp_path / "in.jsonl")
    found = select_rows([str(tmp_path / "in.jsonl")], str(tmp_path / "out.jsonl"), SelectSettings(rule="best"))
    out = written(tmp_path / "out.jsonl")
    assert [made["score"] for made in out] == [max(row["scores"]) for row in rows]
    assert [made["completion"] for made in out] == [row["completions"][int(np.argmax(row["scores"]))] for row in rows]
    assert found.all.score.value == pytest.approx(np.mean([row["scores"] for row in rows]))
    assert found.chosen.score.value == pytest.approx(np.mean([max(row["scores"]) for row in rows]))
    assert found.chosen.gold.value is not None and found.all.gold.value is not None
    assert found.chosen.gold.value > found.all.gold.value
    assert (found.groups, found.completions, found.written) == (40, 320, 40)


def test_top_share_of_all_is_exact_also_where_scores_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [{"prompt": f"Q{n}", "completions": [f"a{n}", f"b{n}"], "labels": [], "scores": [1, 0]} for n in range(50)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = SelectSettings(rule="top", overall=True, share=0.1)
    found = select_rows([str(path)], str(tmp_path / "out.jsonl"), settings)
    out = written(tmp_path / "out.jsonl")
    assert found.written == len(out) == 10
    assert {made["score"] for made in out} == {1}
    other = SelectSettings(rule="top", overall=True, share=0.1, seed=1)
    select_rows([str(path)], str(tmp_path / "other.jsonl"), other)
    assert written(tmp_path / "other.jsonl") != out
    select_rows([str(path)], str(tmp_path / "again.jsonl"), settings)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_conditional_writes_all_and_tells_the_score(tmp_path: Path) -> None:
    rows = sample(tmp_path / "in.jsonl", groups=3)
    settings = SelectSettings(rule="conditional", shape="csft")
    select_rows([str(tmp_path / "in.jsonl")], str(tmp_path / "out.jsonl"), settings)
    out = written(tmp_path / "out.jsonl")
    assert len(out) == 24
    first = rows[0]["scores"].index(max(rows[0]["scores"]))
    assert out[0]["input"] == f"Question 0? <rm_score>: {rows[0]['scores'][first]:.2f} "


def test_longer_choices_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    line = {"prompt": "Q", "completions": ["short", "long " * 30], "labels": [], "scores": [0, 1]}
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = select_rows([str(path)], str(tmp_path / "out.jsonl"), SelectSettings(rule="best"))
    assert "times as long" in (found.warning() or "")


@pytest.mark.parametrize(
    "wrong",
    [{"share": 0.0}, {"share": 1.5}, {"near": 0.0}, {"num": 0}, {"template": "no score here"}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="was needed"):
        SelectSettings(rule="best", **wrong)


def test_nothing_to_choose_from_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError):
        select_rows([str(path)], str(out), SelectSettings(rule="best"))
    sample(path, groups=2)
    with pytest.raises(DataError, match="none has a score that is high enough"):
        select_rows([str(path)], str(out), SelectSettings(rule="top", overall=True, min_score=99))
    assert not out.exists()


def test_a_study_writes_its_numbers_and_its_page(tmp_path: Path) -> None:
    rows = sample(tmp_path / "in.jsonl", groups=60)
    report = study_best_of_n([str(tmp_path / "in.jsonl")], str(tmp_path / "bon"))
    assert json.loads((tmp_path / "bon" / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    assert "<html" in (tmp_path / "bon" / "report.html").read_text(encoding="utf-8")
    assert (report["kind"], report["gold"], report["n_max"], report["prompts"]) == ("bon", "gold_scores", 8, 60)
    digest = hashlib.sha256((tmp_path / "in.jsonl").read_bytes()).hexdigest()
    assert report["data"] == [{"path": str(tmp_path / "in.jsonl"), "sha256": digest}]
    curve = report["curve"]
    assert [point["n"] for point in curve] == list(range(1, 9))
    assert curve[0]["gold"] == pytest.approx(np.mean([row["gold_scores"] for row in rows]))
    assert curve[0]["score"] == pytest.approx(np.mean([row["scores"] for row in rows]))
    assert curve[-1]["gold"] == pytest.approx(np.mean([r["gold_scores"][int(np.argmax(r["scores"]))] for r in rows]))
    assert curve[-1]["gain_ci"][0] > 0
    assert report["law"]["a"] > 0
    assert 1 < report["recommended_n"] <= 8
    assert report["oracle"] == pytest.approx(np.mean([max(row["gold_scores"]) for row in rows]))
    assert [point["spreads"] for point in report["soft"]] == [point["spreads"] for point in report["pessimistic"]]
    greedy = report["soft"][0]
    assert greedy["score"] == pytest.approx(curve[-1]["score"], abs=0.05)


def test_progress_counts_the_rows_that_were_read(tmp_path: Path) -> None:
    sample(tmp_path / "in.jsonl", groups=3)
    for job in (
        lambda watch: study_best_of_n([str(tmp_path / "in.jsonl")], str(tmp_path / "bon"), watch=watch),
        lambda watch: select_rows(
            [str(tmp_path / "in.jsonl")], str(tmp_path / "out.jsonl"), SelectSettings(rule="best"), watch=watch
        ),
    ):
        counted: list[int] = []
        job(counted.append)
        assert counted[-3:] == [1, 2, 3]


def test_two_completions_a_prompt_are_enough_to_choose_from(tmp_path: Path) -> None:
    sample(tmp_path / "in.jsonl", groups=20, num=2)
    report = study_best_of_n([str(tmp_path / "in.jsonl")], str(tmp_path / "bon"))
    assert report["empty_rows"] == 0
    assert report["n_max"] == 2 and [point["n"] for point in report["curve"]] == [1, 2]
    sample(tmp_path / "one.jsonl", groups=20, num=1)
    with pytest.raises(ConfigError, match="at least two"):
        study_best_of_n([str(tmp_path / "one.jsonl")], str(tmp_path / "none"))


def test_without_gold_no_gold_is_made_up(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    rows = sample(path)
    path.write_text("".join(json.dumps({**row, "gold_scores": None}) + "\n" for row in rows), encoding="utf-8")
    report = study_best_of_n([str(path)], str(tmp_path / "bon"))
    assert (report["gold"], report["law"], report["recommended_n"], report["oracle"]) == (None, None, None, None)
    assert all(point["gold"] is None for point in report["curve"])
    with pytest.raises(DataError, match="gold score for each completion"):
        study_best_of_n([str(path)], str(tmp_path / "bon"), BonSettings(gold="human"))
    with pytest.raises(ConfigError, match="no prompt has more than 8"):
        study_best_of_n([str(path)], str(tmp_path / "bon"), BonSettings(num_max=9))


def best_of(gold: np.ndarray, score: np.ndarray, prompt_P: np.ndarray | None = None) -> Curve:
    """The curve of so many prompts with as many candidates each."""
    num_P, num_M = gold.shape
    found = Sample(
        gold="gold_scores", sizes=[num_M] * num_P, prompt_P=list(range(num_P) if prompt_P is None else prompt_P)
    )
    for k in range(num_P):
        found._starts.append(k * num_M)
        for g, s in zip(gold[k], score[k], strict=True):
            found._columns.extend((s, g, 10.0, 1.0))
    return measure_curve(found)


@pytest.mark.parametrize(("num", "is_shown"), [(3, False), (5, False), (6, True)])
def test_equal_gains_of_few_prompts_are_no_certain_gain(num: int, is_shown: bool) -> None:
    """Every prompt gains the same, so every replicate does: only the exact test knows how few they are."""
    gold = np.tile(np.arange(4.0), (num, 1))
    found = best_of(gold, gold)
    assert found.gain is not None and found.gain[0] == pytest.approx(1.5) and found.gain[1] is not None
    assert (found.gain[1][0] > 0) is is_shown
    assert found.recommended_n == (4 if is_shown else 1)
    assert (found.points[-1]["gain_ci"][0] > 0) is is_shown


def test_the_best_of_many_n_is_not_taken_for_a_gain() -> None:
    """Scores that have nothing to do with gold: the n that happens to be best was chosen by the same gold."""
    rng = np.random.default_rng(8)
    called = 0
    for _ in range(60):
        found = best_of(rng.normal(size=(20, 8)), rng.normal(size=(20, 8)))
        assert found.gain is not None and found.gain[1] is not None
        called += found.gain[1][0] > 0
    assert called <= 6


def test_rows_of_one_prompt_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(9)
    gold = np.repeat(rng.normal(size=(12, 4)), 5, axis=0)
    score = gold + np.repeat(rng.normal(size=(12, 4)), 5, axis=0)
    once, five = best_of(gold[::5], score[::5]), best_of(gold, score, np.repeat(np.arange(12), 5))
    assert once.gain is not None and five.gain is not None
    assert five.gain[0] == pytest.approx(once.gain[0]) and five.prompts == 12
    assert five.gain[1] == pytest.approx(once.gain[1], rel=0.1)


def test_intervals_cover_the_truth(tmp_path: Path) -> None:
    """Gold of best-of-4 over many samples: the interval holds the true value about 95 times in 100."""
    from plaudit.select.curve import _Drawn
    from plaudit.select.estimates import estimate_best

    rng = np.random.default_rng(7)
    many = rng.normal(size=(200_000, 4))
    truth = many[np.arange(200_000), (many + rng.normal(size=many.shape)).argmax(axis=1)].mean()
    held = 0
    for trial in range(200):
        gold = rng.normal(size=(40, 8))
        score = gold + rng.normal(size=gold.shape)
        rows = np.array([estimate_best(g, s, [4]) for g, s in zip(gold, score, strict=True)])
        drawn = _Drawn(np.arange(40), trial)
        interval = drawn.interval(drawn.means(rows)[:, 0])
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 180 <= held <= 199, held


@pytest.mark.parametrize(("rule", "shape"), [("best", "rs"), ("conditional", "csft"), ("pairs", "iter_dpo")])
def test_text_parts_are_written_as_text(tmp_path: Path, rule: str, shape: str) -> None:
    def turns(role: str, text: str) -> list[dict[str, Any]]:
        return [{"role": role, "content": [{"type": "text", "text": text[:2]}, {"type": "text", "text": text[2:]}]}]

    texts = ["Hello there", "Good day to you"]
    plain = {"id": "q", "prompt": "How do you do?", "completions": texts, "labels": [], "scores": [1.0, 0.0]}
    parts = plain | {
        "prompt": turns("user", "How do you do?"),
        "completions": [turns("assistant", text) for text in texts],
    }
    found = []
    for name, row in (("plain", plain), ("parts", parts)):
        path, out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        summary = select_rows([str(path)], str(out), SelectSettings(rule=rule, shape=shape))
        found.append((written(out), summary.all.length.value, summary.chosen.length.value))
    assert found[0] == found[1]
