"""An evaluation's report: keys that stay, numbers that anyone can work out again, and what a model's folder learns."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from jobs import Json, group_rows, names, pair_rows, read_lines, write_lines
from measured import asked_of, labelled_file, labelled_rows
from plaudit import ConfigError, DataError, InputError
from plaudit.adjust import CALIBRATION, LENGTH_CORRECTION
from plaudit.checkpoint import read_card
from plaudit.evaluate import evaluate
from plaudit.intake import ReadSettings
from plaudit.measure.record import plain
from plaudit.score import RewardModel
from plaudit.sets import Wanted

KEYS = {
    "plaudit", "kind", "created", "command", "seed", "limit", "model", "versions", "data", "seconds", "accuracy",
    "accuracy_ci", "n", "prompts", "ties", "score_ties", "unscored", "unscored_reasons", "baselines", "alarms",
    "subsets", "worst_subset", "length_gaps", "ranking", "ece", "ece_ci", "brier", "brier_ci", "log_loss",
    "log_loss_ci", "temperature", "temperature_ci", "ece_calibrated", "ece_calibrated_ci", "log_loss_calibrated",
    "reliability", "reliability_calibrated", "length_correlation", "length_correlation_ci", "length_spearman",
    "length_spearman_ci", "length_correlation_tokens", "length_correlation_tokens_ci", "length_fit",
    "length_corrected", "per_token", "lengths", "style", "scores", "mistakes", "notes", "stored", "drift", "ends",
    "contamination", "benchmarks", "training", "probes", "probe_spread", "probe_prompts",
}  # fmt: skip
"""What report.json of `plaudit eval` holds, whatever was asked: a promise to everyone who reads it."""


def quiet(_: str) -> None:
    """For what is said on the way."""


@pytest.fixture(scope="module")
def place(tiny_reward: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and labelled data, measured once."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copytree(tiny_reward, folder / "model")
    labelled_file(folder / "data.jsonl", 220)
    assert evaluate(asked_of(folder / "model", folder / "data.jsonl", folder / "out"), say=quiet) is not None
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> Json:
    found: Json = json.loads((place / "out/report.json").read_text())
    return found


@pytest.fixture(scope="module")
def scored(place: Path) -> list[Json]:
    """The rows as anyone can read them, with their scores."""
    return read_lines(place / "out/scores/data.jsonl")


def comparisons(rows: list[Json]) -> Iterator[tuple[int, Json, int, int]]:
    """Row number, row, better, worse: ties and rows without a score left out."""
    for n, row in enumerate(rows):
        for label in row["labels"]:
            pairs = combinations(label["order"], 2) if "order" in label else [(label.get("better"), label.get("worse"))]
            for better, worse in pairs:
                if better is not None and None not in (row["scores"][better], row["scores"][worse]):
                    yield n, row, better, worse


class TestFigures:
    def test_the_keys_are_those_that_were_promised(self, report: Json) -> None:
        assert set(report) == KEYS
        assert report["kind"] == "eval"
        assert set(report["baselines"]) == {"longest", "shortest", "most_lists", "random", "bag_of_words"}
        for found in report["baselines"].values():
            assert set(found) == {"accuracy", "accuracy_ci", "lead", "lead_ci", "lead_p", "discordant_prompts"}

    def test_accuracy_is_that_of_the_scored_rows(self, report: Json, scored: list[Json]) -> None:
        right = [row["scores"][a] > row["scores"][b] for _, row, a, b in comparisons(scored)]
        assert report["n"] == len(right)
        assert report["accuracy"] == pytest.approx(np.mean(right))
        assert report["accuracy_ci"][0] < report["accuracy"] < report["accuracy_ci"][1]
        assert report["ties"] == sum("tie" in row["labels"][0] for row in scored) == 20
        assert report["unscored"] == 1
        assert report["unscored_reasons"] == {"empty completion": 1}

    def test_every_subset_and_every_rule_is_that_of_the_rows(self, report: Json, scored: list[Json]) -> None:
        for name, found in report["subsets"].items():
            own = [(row, a, b) for _, row, a, b in comparisons(scored) if row["subset"] == name]
            assert found["n"] == len(own)
            assert found["accuracy"] == pytest.approx(np.mean([r["scores"][a] > r["scores"][b] for r, a, b in own]))
            longer = [np.sign(len(r["completions"][a]) - len(r["completions"][b])) for r, a, b in own]
            assert found["baselines"]["longest"] == pytest.approx((np.mean(longer) + 1) / 2)
        assert report["worst_subset"] == min(report["subsets"], key=lambda name: report["subsets"][name]["accuracy"])
        assert report["baselines"]["random"]["accuracy"] == 0.5

    def test_temperature_and_brier_are_those_of_a_fit_by_hand(self, report: Json, scored: list[Json]) -> None:
        gaps = np.array([row["scores"][a] - row["scores"][b] for _, row, a, b in comparisons(scored)])
        assert report["brier"] == pytest.approx(np.mean((1 - 1 / (1 + np.exp(-gaps))) ** 2))
        assert report["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-gaps))))
        if report["temperature"] is not None:
            best = optimize.minimize_scalar(lambda t: np.log1p(np.exp(-gaps * math.exp(t))).mean(), bounds=(-9, 9))
            assert report["temperature"] == pytest.approx(math.exp(-best.x), rel=1e-3)

    def test_length_is_correlated_within_prompts(self, report: Json, scored: list[Json]) -> None:
        by_prompt: dict[str, list[tuple[float, int]]] = {}
        for row in scored:
            found = [(s, len(c)) for s, c in zip(row["scores"], row["completions"], strict=True) if s is not None]
            by_prompt.setdefault(row["prompt"], []).extend(found)
        centred = [np.array(found) - np.mean(found, axis=0) for found in by_prompt.values() if len(found) > 1]
        assert report["length_correlation"] == pytest.approx(stats.pearsonr(*np.concatenate(centred).T).statistic)

    def test_ranked_rows_have_a_ranking(self, report: Json, scored: list[Json]) -> None:
        ranked = [row for row in scored if "order" in row["labels"][0] and len(row["completions"]) == 4]
        top = [int(np.argmax(row["scores"])) == row["labels"][0]["order"][0] for row in ranked]
        assert report["ranking"]["groups"] == len(ranked)
        assert report["ranking"]["top1"] == pytest.approx(np.mean(top))

    def test_where_it_comes_from_is_said(self, report: Json, place: Path) -> None:
        [data] = report["data"]
        assert (data["name"], data["groups"], data["format"]) == ("data", 220, "native")
        assert report["model"]["architecture"] == "LlamaForSequenceClassification"
        assert report["model"]["dtype"] == "float32"
        assert report["seconds"].keys() == {"score", "measure"}
        assert len(report["lengths"]["sample"]) == 44 * 4 + 176 * 2 - 1
        worst = report["mistakes"][0]
        assert worst["score_better"] < worst["score_worse"]
        assert (place / "out/report.html").read_text().startswith("<!doctype html>")


class TestAgain:
    def test_the_same_command_gives_the_same_report_and_scores_nothing(self, place: Path, report: Json) -> None:
        told: list[str] = []
        seen: list[int] = []
        again = evaluate(
            asked_of(place / "model", place / "data.jsonl", place / "out"), say=told.append,
            watch=lambda scorer, pace: seen.append(pace.done),
        )  # fmt: skip
        assert again is not None
        assert seen == []
        moving = {"created", "seconds"}
        assert {k: v for k, v in again.items() if k not in moving} == {
            k: v for k, v in report.items() if k not in moving
        }

    def test_a_limit_draws_rows(self, place: Path, tmp_path: Path) -> None:
        wanted = Wanted(reading=ReadSettings(), limit=50)
        found = evaluate(
            asked_of(place / "model", place / "data.jsonl", tmp_path / "o", wanted=wanted, seed=3), say=quiet
        )
        assert found is not None
        assert (found["limit"], found["seed"], found["data"][0]["groups"]) == (50, 3, 50)

    def test_several_sets_name_their_subsets(self, place: Path, tmp_path: Path) -> None:
        settings = asked_of(place / "model", place / "data.jsonl", tmp_path / "o")
        other = write_lines(tmp_path / "plain.jsonl", pair_rows(30))
        found = evaluate(replace(settings, data=(*settings.data, f"mine={other}")), say=quiet)
        assert found is not None
        assert set(found["subsets"]) == {"data/math", "data/chat", "data/code", "mine"}
        assert found["subsets"]["mine"]["n"] == 30


class TestStoring:
    @pytest.fixture
    def model(self, place: Path, tmp_path: Path) -> Path:
        """A copy, with the labels that it agrees with in most of the data, so that a temperature fits."""
        return Path(shutil.copytree(place / "model", tmp_path / "model"))

    @pytest.fixture
    def data(self, model: Path, tmp_path: Path) -> Path:
        rm = RewardModel.load(model, dtype="float32", device="cpu")
        rows = pair_rows(160, 5)
        for n, row in enumerate(rows):
            a, b = rm.score(row["prompt"], [row["chosen"], row["rejected"]])
            assert a is not None and b is not None
            if (a < b) == bool(n % 4):
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        return write_lines(tmp_path / "data.jsonl", rows)

    def test_what_was_fitted_is_kept_and_used(self, model: Path, data: Path, tmp_path: Path) -> None:
        found = evaluate(asked_of(model, data, tmp_path / "o", calibrate=True, fit_length=True), say=quiet)
        assert found is not None
        assert found["stored"] == [CALIBRATION, LENGTH_CORRECTION]
        card = read_card(model)
        assert card[CALIBRATION]["temperature"] == found["temperature"]
        assert card[CALIBRATION]["comparisons"] == found["n"]
        assert card[CALIBRATION]["data"] == {"data": found["data"][0]["sha256"]}
        rm = RewardModel.load(model, dtype="float32", device="cpu")
        answers = ["w9 w10 w11", "w12"]
        a, b = raw = rm.score("w7 w8", answers)
        assert a is not None and b is not None
        chance = 1 / (1 + math.exp((b - a) / found["temperature"]))
        assert rm.probability("w7 w8", *answers) == pytest.approx(chance, rel=1e-5)
        fit = found["length_fit"]
        worth = [np.interp(len(text), fit["lengths"], fit["scores"]) - fit["mean_score"] for text in answers]
        corrected = rm.score("w7 w8", answers, reading="length_corrected")
        assert corrected == pytest.approx([a - worth[0], b - worth[1]], rel=1e-6)
        assert rm.score("w7 w8", answers) == raw, "the raw score is what it was"

    def test_without_being_asked_nothing_is_stored(self, model: Path, data: Path, tmp_path: Path) -> None:
        before = read_card(model)
        found = evaluate(asked_of(model, data, tmp_path / "o"), say=quiet)
        assert found is not None
        assert found["stored"] == []
        assert read_card(model) == before

    def test_scores_that_are_all_right_have_no_temperature(self, model: Path, data: Path, tmp_path: Path) -> None:
        rm = RewardModel.load(model, dtype="float32", device="cpu")
        rows = read_lines(data)
        for row in rows:
            a, b = rm.score(row["prompt"], [row["chosen"], row["rejected"]])
            assert a is not None and b is not None
            if a < b:
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        found = evaluate(asked_of(model, write_lines(data, rows), tmp_path / "o", calibrate=True), say=quiet)
        assert found is not None
        assert (found["accuracy"], found["temperature"], found["stored"]) == (1.0, None, [])
        assert any(note.startswith("no temperature fits these scores (160 comparisons") for note in found["notes"])
        assert CALIBRATION not in read_card(model)

    def test_too_few_answers_fit_no_curve(self, model: Path, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "few.jsonl", pair_rows(12))
        found = evaluate(asked_of(model, data, tmp_path / "o", fit_length=True), say=quiet)
        assert found is not None
        assert (found["length_fit"], found["length_corrected"], found["stored"]) == (None, None, [])
        assert any(note.startswith("24 scored answers are too few") for note in found["notes"])
        assert LENGTH_CORRECTION not in read_card(model)

    def test_a_model_of_the_hub_is_refused_at_once(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="owner/name is no folder"):
            evaluate(asked_of(Path("owner/name"), data, tmp_path / "o", fit_length=True), say=quiet)
        assert not (tmp_path / "o").exists()


class TestDrift:
    def test_data_like_the_reference_need_no_retraining(self, place: Path, tmp_path: Path) -> None:
        old = labelled_file(tmp_path / "old.jsonl", 220, seed=1)
        found = evaluate(asked_of(place / "model", place / "data.jsonl", place / "out", reference=str(old)), say=quiet)
        assert found is not None
        drift = found["drift"]
        assert drift["retrain"] == "no"
        assert drift["reference"][0]["name"] == "reference"
        assert drift["accuracy"]["new"] == found["accuracy"]
        assert drift["accuracy"]["difference"] == pytest.approx(found["accuracy"] - drift["accuracy"]["reference"])
        assert drift["far"]["share"] < 0.2
        assert drift["score"]["size"] == drift["length"]["size"] == "none"
        assert "drift" in found["seconds"]

    def test_data_without_labels_are_measured_against_a_reference(self, place: Path, tmp_path: Path) -> None:
        new = write_lines(tmp_path / "new.jsonl", group_rows(120))
        found = evaluate(asked_of(place / "model", new, tmp_path / "o", reference=str(place / "data.jsonl")), say=quiet)
        assert found is not None
        assert set(found) == KEYS
        assert (found["accuracy"], found["accuracy_ci"], found["n"], found["ece"]) == (None, None, 0, None)
        assert found["drift"]["accuracy"]["difference"] is None
        assert "no labels" in found["drift"]["notes"][0]
        assert any("120 of 120 groups have no label" in note for note in found["notes"])

    def test_one_name_for_two_is_refused(self, place: Path, tmp_path: Path) -> None:
        settings = asked_of(
            place / "model", place / "data.jsonl", tmp_path / "o", reference=f"data={place / 'data.jsonl'}"
        )
        with pytest.raises(ConfigError, match="would both be called 'data'"):
            evaluate(settings, say=quiet)


def test_training_data_are_found_in_what_is_measured(place: Path, tmp_path: Path) -> None:
    rows = labelled_rows(220)[:40]
    for n, row in enumerate(rows):
        row["prompt"] = f"{row['prompt']} w{10 + n} w{11 + n}"
    data = write_lines(tmp_path / "d.jsonl", rows)
    train = write_lines(tmp_path / "train.jsonl", rows[:10] + labelled_rows(30, seed=9))
    found = evaluate(asked_of(place / "model", data, tmp_path / "o", against=(str(train),)), say=quiet)
    assert found is not None
    told = found["contamination"]
    assert (told["same_prompt"], told["groups"], told["seen_groups"]) == (10, 40, 40)
    assert told["clean_accuracy"]["n"] < found["n"]


def test_a_benchmark_is_measured_by_its_own_rule_too(place: Path, tmp_path: Path) -> None:
    for name in ("Natural", "Manual"):
        (tmp_path / name).mkdir()
        rows = [
            {"input": f"w{7 + n}", "output_1": f"w{n + 8} w9", "output_2": f"w{n + 9}", "label": 1 + n % 2}
            for n in range(20)
        ]
        (tmp_path / name / "dataset.json").write_text(json.dumps(rows))
    found = evaluate(asked_of(place / "model", Path(f"llmbar={tmp_path}/*/dataset.json"), tmp_path / "o"), say=quiet)
    assert found is not None
    told = found["benchmarks"]["llmbar"]
    parts = {name: found["subsets"][f"llmbar-{name}-dataset"]["accuracy"] for name in ("Natural", "Manual")}
    assert told["parts"]["Natural"]["score"] == pytest.approx(parts["Natural"])
    assert told["score"] == pytest.approx(np.mean(list(parts.values())))
    assert told["complete"] is False


def test_probes_are_part_of_the_report_and_are_journaled(place: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int | None]] = []
    settings = asked_of(place / "model", place / "data.jsonl", tmp_path / "o", probes=True)
    found = evaluate(settings, say=quiet, stage=lambda *seen: stages.append(seen))
    assert found is not None
    assert set(found) == KEYS
    assert len(found["probes"]) >= 20
    assert stages[-1][0] == "probing"
    assert "probes.journal" in names(tmp_path / "o/scores")
    written = (tmp_path / "o/scores/probes.journal").read_text().count("\n")
    again = evaluate(settings, say=quiet)
    assert again is not None
    assert again["probes"] == found["probes"]
    assert (tmp_path / "o/scores/probes.journal").read_text().count("\n") <= written + 1


def test_rows_that_cannot_be_measured_are_a_sentence(place: Path, tmp_path: Path) -> None:
    bare = write_lines(tmp_path / "bare.jsonl", group_rows(5))
    with pytest.raises(DataError, match="no row of it says which completion is better"):
        evaluate(asked_of(place / "model", bare, tmp_path / "o"), say=quiet)


def test_what_is_no_finite_number_is_null() -> None:
    found = plain({"a": (math.nan, 1.0, "x"), "b": {"c": math.inf}, "d": np.float64(0.5), "e": True})
    assert json.dumps(found, allow_nan=False) == '{"a": [null, 1.0, "x"], "b": {"c": null}, "d": 0.5, "e": true}'
