"""`plaudit compare`: who is better is worked out pair by pair, and can be worked out again from the scored rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from forks import Parent
from jobs import Json, names, pair_rows, read_lines, write_lines
from measured import labelled_file
from plaudit import ConfigError
from plaudit.compare import is_model, name_models, split_words
from tiny import save_model

QUICK = ("--dtype", "float32", "--device", "cpu", "--budget", "512")
KEYS = {
    "plaudit", "kind", "created", "command", "seed", "limit", "versions", "data", "seconds", "models", "pairs", "notes",
}  # fmt: skip
PAIR = {
    "a", "b", "n", "prompts", "unscored", "accuracy_a", "accuracy_b", "difference", "difference_ci", "p",
    "discordant_prompts", "only_a_right", "only_b_right", "agree", "mcnemar_p", "mcnemar_mid_p", "subsets",
    "disagreements",
}  # fmt: skip
SHOWN = {
    "prompt", "better", "worse", "a_better", "a_worse", "b_better", "b_worse", "right", "subset", "id",
}  # fmt: skip

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def ask(parent: Parent) -> Ask:
    """`plaudit compare ...` in a process of its own."""

    def start(*words: object) -> tuple[int, str, str]:
        child = parent.start("compare", *map(str, words))
        return child.wait(), child.stdout.read_text(), child.stderr.read_text()

    return start


@pytest.fixture(scope="module")
def place(tiny_reward: Path, tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Path:
    """Two models and their comparison."""
    folder = tmp_path_factory.mktemp("compare")
    shutil.copytree(tiny_reward, folder / "old")
    save_model(folder / "new", seed=5)
    rows = pair_rows(250)
    for n, row in enumerate(rows):
        row["subset"] = "even" if n % 2 == 0 else "odd"
    rows[7]["chosen"] = ""
    write_lines(folder / "data.jsonl", rows)
    code, _, err = ask(folder / "old", folder / "new", folder / "data.jsonl", "--out", folder / "out", *QUICK)
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> Json:
    found: Json = json.loads((place / "out/report.json").read_text())
    return found


def test_the_figures_are_those_of_the_scored_rows(place: Path, report: Json) -> None:
    rows = [read_lines(place / f"out/scores/{name}/data.jsonl") for name in ("old", "new")]
    both = [
        (one, other)
        for one, other in zip(*rows, strict=True)
        if None not in one["scores"] and None not in other["scores"]
    ]
    right = np.array([[r["scores"][0] > r["scores"][1] for r in pair] for pair in both])
    [found] = report["pairs"]
    assert set(report) == KEYS
    assert set(found) == PAIR
    assert (found["a"], found["b"], found["n"], found["unscored"]) == ("old", "new", 249, 1)
    assert found["difference"] == pytest.approx(right[:, 1].mean() - right[:, 0].mean())
    only_a, only_b = int((right[:, 0] & ~right[:, 1]).sum()), int((~right[:, 0] & right[:, 1]).sum())
    assert (found["only_a_right"], found["only_b_right"]) == (only_a, only_b)
    assert found["mcnemar_p"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    # Every prompt has one comparison, so the test by prompt is McNemar's; p and the interval say the same.
    assert found["discordant_prompts"] == only_a + only_b
    assert (found["p"] < 0.05) == (not found["difference_ci"][0] <= 0 <= found["difference_ci"][1])
    assert found["p"] == pytest.approx(found["mcnemar_p"]) or found["p"] >= 0.05 > found["mcnemar_p"]
    assert found["agree"] == pytest.approx((right[:, 0] == right[:, 1]).mean())
    low, high = found["difference_ci"]
    spread = 1.96 * (right[:, 1].astype(float) - right[:, 0]).std() / np.sqrt(len(right))
    assert (low, high) == pytest.approx((found["difference"] - spread, found["difference"] + spread), abs=0.01)
    for model, column in zip(report["models"], right.T, strict=True):
        assert model["accuracy"] == pytest.approx(column.mean())
    assert {name: one["n"] for name, one in found["subsets"].items()} == {"even": 125, "odd": 124}


def test_disagreements_show_their_texts_the_widest_first(place: Path, report: Json) -> None:
    by_id = {row["id"]: row for row in read_lines(place / "data.jsonl")}
    shown = report["pairs"][0]["disagreements"]
    assert len(shown) == 20
    for one in shown:
        assert set(one) == SHOWN
        row = by_id[one["id"]]
        assert (one["prompt"], one["better"], one["worse"]) == (row["prompt"], row["chosen"], row["rejected"])
        is_a = one["a_better"] > one["a_worse"]
        assert is_a != (one["b_better"] > one["b_worse"])
        assert one["right"] == ("old" if is_a else "new")


def test_again_with_a_third_model_only_that_one_is_scored(place: Path, ask: Ask) -> None:
    save_model(place / "third", seed=9)
    before = {path: path.stat().st_mtime_ns for path in (place / "out/scores").rglob("data.jsonl")}
    code, out, err = ask(
        place / "old", place / "new", place / "third", place / "data.jsonl", "--out", place / "out", "--json", *QUICK
    )
    assert code == 0, err
    found = json.loads(out)
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [("old", "new"), ("old", "third"), ("new", "third")]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert names(place / "out/scores") == {"old", "new", "third"}


def test_people_get_an_answer(place: Path, ask: Ask, tmp_path: Path) -> None:
    code, out, err = ask(
        f"before={place / 'old'}", place / "new", place / "data.jsonl", "--out", tmp_path / "o", *QUICK
    )
    assert code == 0, err
    assert out.startswith("Which one is better?")
    assert "\nnew against before  249 comparisons that both scored\n" in out
    assert "McNemar" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "scoring with before" in err and "scoring with new" in err


def test_more_labels_than_pairs_and_a_seed(place: Path, ask: Ask, tmp_path: Path) -> None:
    data = labelled_file(tmp_path / "l.jsonl", 110)
    words = (place / "old", place / "new", data, "--out", tmp_path / "o", "--json", "--limit", "60", *QUICK)
    first, again, other = (json.loads(ask(*words, "--seed", seed)[1]) for seed in (1, 1, 2))
    assert first["pairs"] == again["pairs"]
    assert first["pairs"] != other["pairs"]
    assert first["data"][0]["groups"] == 60


class TestWords:
    def test_models_come_first_and_then_data(self, place: Path) -> None:
        model, data = str(place / "old"), str(place / "data.jsonl")
        assert split_words([model, "b", data]) == ((model, "b"), (data,))
        assert split_words([model, "b", f"x={model}", data, data]) == ((model, "b", f"x={model}"), (data, data))
        with pytest.raises(ConfigError, match="two models at least and then data were needed"):
            split_words([model, model])

    @pytest.mark.parametrize(
        ("word", "found"),
        [
            ("smollm2", True), ("owner/name", True), ("owner/name@main", True), ("data/x.jsonl", False),
            ("data/x.jsonl.gz", False), ("hub:owner/name", False), ("-", False), ("llmbar", False),
        ],
    )  # fmt: skip
    def test_what_looks_like_a_model(self, word: str, found: bool) -> None:
        assert is_model(word) is found

    def test_names(self) -> None:
        found = name_models(["runs/a/model", "runs/b/model/", "best=runs/c"])
        assert [one.name for one in found] == ["a-model", "b-model", "best"]
        with pytest.raises(ConfigError, match="runs/a came twice"):
            name_models(["runs/a", "runs/a/"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{old}", "{data}", "--out", "{o}"), "two models at least and then data"),
        (("{old}", "{old}", "{data}", "--out", "{o}"), "came twice, and would be compared with itself"),
        (("{old}", "{new}", "{old}/none.jsonl", "--out", "{o}"), "there is no such file"),
        (("{old}", "{old}x", "{data}", "--out", "{o}"), "is not there; name a folder"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    place: Path, ask: Ask, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    given = {"old": place / "old", "new": place / "new", "data": place / "data.jsonl", "o": tmp_path / "o"}
    code, out, err = ask(*(word.format(**given) for word in words), *QUICK)
    assert code == 2
    assert out == ""
    assert said in err.splitlines()[-1], err
