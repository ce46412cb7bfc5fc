"""`plaudit train` as a user meets it: what it prints and where, and one sentence for everything that can be wrong."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forks import Parent
from jobs import names
from schooling import QUICK, graded_rows, write_rows
from tiny import save_model
from told import Told, hear, last_sentence

Train = Callable[..., Told]
SHORT = (*QUICK, "train.max_steps=3")


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    folder = tmp_path_factory.mktemp("trainers")
    with contextlib.chdir(folder):  # where a run's folder has a short name
        made = Parent(folder, imports="plaudit.train, peft, transformers.trainer, accelerate")
    yield made
    made.close()


@pytest.fixture
def train(trainers: Parent) -> Train:
    def start(*words: object, **environment: str) -> Told:
        return hear(trainers.start("train", *map(str, words), env=environment))

    return start


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("school")
    save_model(folder / "rm")
    write_rows(folder / "pairs.jsonl", graded_rows(80))
    write_rows(folder / "eval.jsonl", graded_rows(30, seed=4))
    one = [row | {"completions": row["completions"][:1], "labels": []} for row in graded_rows(8)]
    write_rows(folder / "one.jsonl", one)
    write_rows(folder / "ties.jsonl", [row | {"labels": [{"tie": [0, 1]}]} for row in graded_rows(8)])
    return folder


class TestResults:
    def test_json_is_one_object_with_the_names_that_others_rely_on(
        self, train: Train, school: Path, tmp_path: Path
    ) -> None:
        told = train(
            school / "rm", school / "pairs.jsonl", "--out", tmp_path / "run", "--eval", school / "eval.jsonl", *SHORT,
            "--json",
        )  # fmt: skip
        assert told.code == 0, told.err
        report = told.json
        assert report["model"] == str(tmp_path / "run" / "model") and Path(report["model"], "config.json").is_file()
        assert report["pairs_per_second"] > 0 and report["unique_tokens_per_second"] > 0
        assert 0 <= report["eval"]["accuracy"] <= 1 and report["steps"] == 3

    def test_people_get_a_table_and_stderr_stays_quiet(self, train: Train, school: Path, tmp_path: Path) -> None:
        told = train(school / "rm", school / "pairs.jsonl", "-o", tmp_path / "run", *SHORT)
        assert told.code == 0, told.err
        for word in ("Trained", "model", "eval accuracy", "steps", "3, best at", "pairs/s"):
            assert word in told.out, told.out
        assert "3/3 steps" in told.err.splitlines()[-1]
        for line in told.err.splitlines():
            assert not re.search(r"warn|Loading|it/s|%\||\[\d+/\d+|Trainer|deprecat", line), line
        assert "\r" not in told.err and "\x1b" not in told.err + told.out

    @pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["run", "dry run"])
    def test_forty_columns_hold_it(self, train: Train, school: Path, words: tuple[str, ...]) -> None:
        told = train(school / "rm", school / "pairs.jsonl", "-o", "r", *SHORT, *words, COLUMNS="40")
        assert told.code == 0, told.err
        assert max(map(len, told.out.splitlines())) <= 40, told.out

    def test_a_dry_run_tells_every_setting_with_its_origin_and_trains_nothing(
        self, train: Train, school: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text("train:\n  weight_decay: 0.01\n")
        words = (school / "rm", school / "pairs.jsonl", "-o", tmp_path / "run", "-c", file, *SHORT, "--dry-run")
        told = train(*words, "seed=3")
        assert told.code == 0, told.err
        assert names(tmp_path) == {"settings.yaml"}
        flat = " ".join(told.out.split())
        assert "0.01 (settings.yaml)" in flat and "3 (command line)" in flat and "(derived: " in flat
        from plaudit.config.kinds import settings

        missing = [key for key in settings() if key not in flat and key not in ("hf", "model_args", "loss.annotators")]
        assert missing == []
        for word in ("What it would take", "memory", "time", "(an estimate)"):
            assert word in flat

    def test_a_dry_run_is_an_object_too(self, train: Train, school: Path, tmp_path: Path) -> None:
        told = train(school / "rm", school / "pairs.jsonl", "-o", tmp_path / "run", *SHORT, "--dry-run", "--json")
        assert told.json["plan"]["steps"] == 3 and told.json["settings"]["train.max_steps"] == 3

    def test_resume_needs_nothing_said_again(self, train: Train, school: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        assert train(school / "rm", school / "pairs.jsonl", "-o", out, *SHORT).code == 0
        (out / "report.json").unlink()
        for words in (("--out", out), (f"out={out}",)):
            told = train(*words, "--resume", "--json")
            assert told.code == 0, told.err
            assert told.json["steps"] == 3
        assert "going on from" in train("--out", out, "--resume").err or "finished" in told.err


Break = Callable[[Path, Path], list[object]]


def usual(at: Path, school: Path, *more: object) -> list[object]:
    return other_data(at, school, "pairs.jsonl", *more)


def other_data(at: Path, school: Path, file: str, *more: object) -> list[object]:
    said = {str(word).partition("=")[0] for word in more}
    short = [word for word in SHORT if word.partition("=")[0] not in said]
    return [school / "rm", school / file, "-o", at / "run", *short, *more]


def beside(at: Path, school: Path) -> list[object]:
    (at / "run").mkdir()
    (at / "run" / "notes.txt").write_text("mine")
    return usual(at, school)


def a_file(at: Path, school: Path) -> list[object]:
    (at / "run").write_text("mine")
    return usual(at, school)


BAD: dict[str, tuple[Break, tuple[str, ...]]] = {
    "an unknown key": (
        lambda at, school: usual(at, school, "train.epoch=2"),
        ("unknown key train.epoch", "did you mean train.epochs"),
    ),
    "another tool's key": (
        lambda at, school: usual(at, school, "lora_alpha=16"),
        ("unknown key lora_alpha", "lora.alpha"),
    ),
    "an unknown loss": (
        lambda at, school: usual(at, school, "loss.name=bradley"),
        ("loss.name", "bradley_terry", "plackett_luce", "token_wise", "regression"),
    ),
    "a number that is none": (
        lambda at, school: usual(at, school, "train.weight_decay=much"),
        ("train.weight_decay", "'much' came"),
    ),
    "an unknown name under hf": (
        lambda at, school: usual(at, school, "hf.adam_epsilom=1e-6"),
        ("hf.adam_epsilom came", "did you mean hf.adam_epsilon?"),
    ),
    "a name under hf that is ours": (
        lambda at, school: usual(at, school, "hf.learning_rate=1e-6"),
        ("hf.learning_rate came", "set train.learning_rate instead"),
    ),
    "one completion only": (
        lambda at, school: other_data(at, school, "one.jsonl"),
        ("no group is left to learn from", "8"),
    ),
    "all ties, dropped": (
        lambda at, school: other_data(at, school, "ties.jsonl", "loss.ties=drop"),
        ("no group is left to learn from", "8 every label is a tie, and loss.ties is drop"),
    ),
    "all ties": (
        lambda at, school: other_data(at, school, "ties.jsonl"),
        ("every label is a tie, so nothing says which completion is better",),
    ),
    "a data file that is not there": (
        lambda at, school: other_data(at, school, "gone.jsonl"),
        ("gone.jsonl",),
    ),
    "no data": (lambda at, school: [school / "rm", "-o", at / "run"], ("data",)),
    "no run folder": (lambda at, school: [school / "rm", school / "pairs.jsonl"], ("out",)),
    "a folder with something else": (beside, ("files are there that are no run (notes.txt); name another --out",)),
    "a file in the folder's place": (a_file, ("a file is there, a folder for the run was needed",)),
    "evaluation data that were trained on": (
        lambda at, school: usual(at, school, "--eval", school / "pairs.jsonl"),
        ("split.force_overlap",),
    ),
    "adapters nowhere": (
        lambda at, school: usual(at, school, "lora.enabled=true", "lora.targets=nowhere"),
        ("nowhere", "q_proj"),
    ),
    "adapters in a frozen backbone": (
        lambda at, school: usual(at, school, "lora.enabled=true", "train.backbone=frozen"),
        ("adapters are part of the backbone",),
    ),
    "a device that is not here": (
        lambda at, school: usual(at, school, "device=cuda:77"),
        ("device 'cuda:77' came",),
    ),
    "a model that is not there": (
        lambda at, school: [at / "gone", school / "pairs.jsonl", "-o", at / "run", *SHORT],
        ("gone is not there",),
    ),
    "an optimizer that there is not": (
        lambda at, school: usual(at, school, "train.optimizer=adamq"),
        ("adamq",),
    ),
    "a stream without an end": (
        lambda at, school: [w for w in usual(at, school, "streaming=true") if w != "train.max_steps=3"],
        ("streaming=true came without train.max_steps",),
    ),
    "a metric of a set that is not there": (
        lambda at, school: usual(at, school, "train.best_by=gone/loss"),
        ("no evaluation set is called 'gone'",),
    ),
}  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    def test_it_is_one_sentence(self, train: Train, school: Path, tmp_path: Path, name: str) -> None:
        make, said = BAD[name]
        sentence = last_sentence(train(*make(tmp_path, school)), *said)
        assert len(sentence) < 700
        assert not (tmp_path / "run" / "model").exists() and not (tmp_path / "run" / "report.json").exists()

    def test_a_mistake_costs_no_folder(self, train: Train, school: Path, tmp_path: Path) -> None:
        """What is wrong before the first step does not stand in the way of the same command, mended."""
        last_sentence(train(*usual(tmp_path, school, "lora.enabled=true", "lora.targets=nowhere")), "nowhere")
        told = train(*usual(tmp_path, school))
        assert told.code == 0, told.err

    def test_a_run_that_is_there_is_left_alone(self, train: Train, school: Path, tmp_path: Path) -> None:
        assert train(*usual(tmp_path, school)).code == 0
        before = {p: p.read_bytes() for p in sorted((tmp_path / "run").rglob("*")) if p.is_file() and p.name != ".lock"}
        last_sentence(train(*usual(tmp_path, school)), "a run is there already (finished); go on with --resume")
        (tmp_path / "run" / "report.json").unlink()
        last_sentence(
            train(*usual(tmp_path, school, "--resume", "train.max_steps=4")),
            "this run was begun with other settings (train.max_steps was 3, now 4)",
        )
        for path, content in before.items():
            assert path.name == "report.json" or path.read_bytes() == content, path

    def test_data_that_have_changed_are_not_gone_on_with(self, train: Train, school: Path, tmp_path: Path) -> None:
        data = write_rows(tmp_path / "pairs.jsonl", graded_rows(40))
        words = [school / "rm", data, "-o", tmp_path / "run", *SHORT]
        assert train(*words).code == 0
        (tmp_path / "run" / "report.json").unlink()
        write_rows(data, graded_rows(40, seed=2))
        last_sentence(train(*words, "--resume"), "came with other content than this run began with")

    def test_under_json_the_sentence_is_in_the_object_too(self, train: Train, school: Path, tmp_path: Path) -> None:
        told = train(*usual(tmp_path, school, "train.epoch=2", "--json"))
        assert told.code == 2 and told.json["exit"] == 2
        assert json.dumps(told.json["error"]) in json.dumps(told.err.removeprefix("plaudit: error: ").rstrip("\n"))
