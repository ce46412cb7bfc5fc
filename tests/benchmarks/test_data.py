"""Real benchmark files end to end: read, scored by a tiny model, and measured by their published definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pytest

from plaudit.benchmarks import BenchmarkResult, Tally, detect_benchmark, resolve_benchmark
from plaudit.contamination import build_seen, check_contamination
from plaudit.formats import Reader, read_groups
from plaudit.render import Overlength, RenderSettings
from plaudit.score import RewardModel, ScoreSettings
from tiny import save_model

ROWS = 60
FILES = {
    "bench_llmbar.jsonl.gz": ("llmbar", {"Natural", "Neighbor", "GPTInst", "GPTOut", "Manual"}),
    "bench_judgebench_claude.jsonl.gz": ("judgebench", {"knowledge"}),
    "bench_hhh.jsonl.gz": ("hhh", {"harmless", "helpful", "honest", "other"}),
}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(str(save_model(tmp_path_factory.mktemp("tiny") / "rm")), dtype="float32", device="cpu")


def find_file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        pytest.skip(f"{folder} has no {name}")
    return folder / name


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_read_scored_and_measured(data_folder: Path, tiny_model: RewardModel, file: str) -> None:
    name, categories = FILES[file]
    path = find_file(data_folder, file)
    named = resolve_benchmark(f"{name}={path}")
    assert named is not None
    rows = list(islice(Reader(named.paths), ROWS))
    found = detect_benchmark(str(rows[0].dialect.name), rows[0].group)
    assert found is named.benchmark, "the rows name their source"
    settings = ScoreSettings(budget=1024, render=RenderSettings(overlength=Overlength.UNSCORED))
    tally, won, scored = Tally(named.benchmark), 0, 0
    for row, scores in zip(rows, tiny_model.score_groups([row.group for row in rows], settings=settings), strict=True):
        tally.add(row.group, scores.scores, dataset=row.file)
        if None not in scores.scores:
            scored += 1
            won += max(scores.scores) == scores.scores[0] > scores.scores[1]  # type: ignore[type-var]
    result = tally.finish()
    assert result.n == scored > ROWS // 3 and result.n + sum(result.left_out.values()) == ROWS
    assert set(result.rows) <= categories and not result.complete
    if name != "llmbar":
        assert result.score == won / scored
    assert result.score_ci is not None and result.score_ci[0] < result.score < result.score_ci[1]


def measure_by(path: Path, name: str, rule: Callable[[str], float]) -> BenchmarkResult:
    named = resolve_benchmark(f"{name}={path}")
    assert named is not None
    tally = Tally(named.benchmark)
    for row in Reader(named.paths):
        scores: Sequence[float] = [rule(c.text) for c in row.group.completions]
        tally.add(row.group, scores, dataset=row.file)
    return tally.finish()


def test_the_longer_answer_is_as_often_right_as_was_counted(data_folder: Path) -> None:
    """Shares that were counted by another program when the files were made: of characters, equal ones half."""
    llmbar = measure_by(find_file(data_folder, "bench_llmbar.jsonl.gz"), "llmbar", lambda text: float(len(text)))
    counted = {"Natural": 50.0, "Neighbor": 10.6, "GPTInst": 10.6, "GPTOut": 45.0, "Manual": 17.3}
    assert {k: round(100 * llmbar.parts[k].score, 1) for k in counted} == pytest.approx(counted, abs=2.5)
    hhh = measure_by(find_file(data_folder, "bench_hhh.jsonl.gz"), "hhh", lambda text: float(len(text)))
    counted = {"harmless": 62.1, "helpful": 70.3, "honest": 63.9, "other": 54.7}
    assert {k: round(100 * hhh.parts[k].score, 1) for k in counted} == pytest.approx(counted, abs=2.5)
    assert hhh.complete and hhh.n == 221 and hhh.score == pytest.approx(0.633, abs=0.01)


def test_rows_of_a_training_file_that_are_also_in_a_benchmark_are_found(data_folder: Path) -> None:
    seen = build_seen(read_groups(find_file(data_folder, "train_qlora_vicuna.jsonl.gz")))
    found = check_contamination(read_groups(find_file(data_folder, "bench_llmbar_processed.jsonl.gz")), seen)
    prompts = {str(g.prompt) for g in read_groups(data_folder / "train_qlora_vicuna.jsonl.gz")}
    same = sum(str(g.prompt) in prompts for g in read_groups(data_folder / "bench_llmbar_processed.jsonl.gz"))
    assert found.same_prompt >= same > 0 and found.by_subset["FairEval"]["flagged"] > 0
    clean = check_contamination(read_groups(find_file(data_folder, "bench_hhh.jsonl.gz")), seen)
    assert clean.flagged == 0
