"""`plaudit score` as a user meets it: what it prints and where, and one sentence for everything that can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import plaudit
from forks import Parent
from jobs import Json, group_rows, names, pair_rows, read_lines, write_lines
from plaudit.formats import Reader
from tiny import save_model

SOURCE = Path(str(plaudit.__file__)).parents[1]
QUICK = ("--dtype", "float32", "--device", "cpu", "--window", "8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a command said, where, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """The one object on stdout."""
        assert self.out.count("\n") == 1
        found: Json = json.loads(self.out)
        return found


Score = Callable[..., Told]


@pytest.fixture
def score(parent: Parent) -> Score:
    """`plaudit score ...` in a process of its own."""

    def start(*words: object, env: dict[str, str] | None = None, **streams: Path) -> Told:
        child = parent.start("score", *map(str, words), env=env, **{name: str(path) for name, path in streams.items()})
        is_piped = "stdout" in streams
        return Told(code=child.wait(), out="" if is_piped else child.stdout.read_text(), err=child.stderr.read_text())

    return start


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", pair_rows(20))


def one_line(told: Told, *said: str) -> str:
    """The sentence of a command that the user's input has ended."""
    assert told.code == 2, told
    assert told.out == ""
    assert told.err.startswith("plaudit: error: ") and told.err.count("\n") == 1, told.err
    assert "Traceback" not in told.err
    for words in said:
        assert words in told.err, told.err
    return told.err


class TestResults:
    def test_people_get_two_lines_and_progress_stays_on_stderr(
        self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.jsonl"
        told = score(tiny_reward, data, "-o", out, *QUICK)
        assert told.code == 0, told.err
        headline, tokens, model = told.out.splitlines()
        assert headline == f"{out}: 20 rows, 40 of 40 completions scored"
        assert "tokens computed for" in tokens and "x shared" in tokens
        assert model == f"{tiny_reward}: float32, attention back end blocks"
        progress, *notes = told.err.splitlines()
        assert progress.startswith("scoring: 20/20 rows, ") and "unique tokens/s" in progress
        assert any("read as TRL preference rows" in note for note in notes)
        assert "20 groups rendered with the chat template" in notes
        assert len(read_lines(out)) == 20 and names(tmp_path) == {"in.jsonl", "out.jsonl"}

    def test_json_is_one_object_and_nothing_else(
        self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.jsonl"
        told = score(tiny_reward, data, "-o", out, *QUICK, "--json")
        assert told.code == 0, told.err
        counts = {"rows": 20, "completions": 40, "scored": 40, "unscored": 0, "dropped": 0, "bad_rows": 0}
        assert told.json | counts == told.json
        assert told.json["unique_tokens"] * told.json["sharing"] == pytest.approx(told.json["total_tokens"])
        assert (told.json["out"], told.json["model"]) == (str(out), str(tiny_reward))
        assert (told.json["backend"], told.json["dtype"]) == ("blocks", "float32")
        assert "scoring:" not in told.err and "20 groups rendered" in told.err

    @pytest.mark.parametrize("words", [("-o", "-"), ("--out=-",), ("-o", "/dev/stdout")], ids=" ".join)
    def test_stdout_holds_the_rows_and_nothing_else(
        self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path, words: tuple[str, ...]
    ) -> None:
        assert score(tiny_reward, data, "-o", tmp_path / "out.jsonl", *QUICK).code == 0
        # A pipe, as in `plaudit score ... | head`: redirected into a file, /dev/stdout would be that file.
        os.mkfifo(tmp_path / "pipe")
        with ThreadPoolExecutor(1) as reading:
            rows = reading.submit((tmp_path / "pipe").read_text)
            told = score(tiny_reward, data, *words, *QUICK, stdout=tmp_path / "pipe")
            told = replace(told, out=rows.result())
        assert told.code == 0, told.err
        assert told.out == (tmp_path / "out.jsonl").read_text()
        assert "20 rows, 40 of 40 completions scored" in told.err
        assert names(tmp_path) == {"in.jsonl", "out.jsonl", "pipe"}

    def test_stdin_is_read_like_a_file(self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path) -> None:
        first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
        assert score(tiny_reward, data, "-o", first, *QUICK).code == 0
        told = score(tiny_reward, "-", "-o", second, *QUICK, stdin=data)
        assert told.code == 0, told.err
        assert first.read_bytes() == second.read_bytes()
        assert "stdin: read as TRL preference rows" in told.err
        assert names(tmp_path) == {"in.jsonl", "a.jsonl", "b.jsonl"}

    def test_several_files_become_one_parquet_table(
        self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        shutil.copy(data, tmp_path / "more.jsonl")
        out = tmp_path / "out.parquet"
        told = score(tiny_reward, data, tmp_path / "more.jsonl", "-o", out, *QUICK)
        assert told.code == 0, told.err
        with Reader(out) as reader:
            rows = [record.raw for record in reader.records()]
        assert [row["id"] for row in rows] == [f"q{i}" for i in range(20)] * 2
        assert all(row["scores"] == [row["chosen_score"], row["rejected_score"]] for row in rows)

    def test_what_was_done_before_is_said_and_not_done_again(
        self, parent: Parent, score: Score, tiny_reward: Path, tmp_path: Path
    ) -> None:
        data = write_lines(tmp_path / "in.jsonl", [*pair_rows(30), {"prompt": "w8", "chosen": 7, "rejected": "w9"}])
        out = tmp_path / "out.jsonl"
        one_line(score(tiny_reward, data, "-o", out, *QUICK), "in.jsonl, line 31, field 'chosen': a number came")
        [parts] = names(tmp_path) - {"in.jsonl"}
        assert parts.startswith(".out.jsonl.parts-")
        told = score(tiny_reward, data, "-o", out, *QUICK)
        assert "rows were done already: going on from there" in told.err
        told = score(tiny_reward, data, "-o", out, *QUICK, "--bad-rows", f"skip={tmp_path / 'bad.jsonl'}")
        assert told.code == 0, told.err
        assert "30 rows, 60 of 60 completions scored, 1 bad rows set aside" in told.out
        assert names(tmp_path) == {"in.jsonl", "out.jsonl", "bad.jsonl"}


class TestOptions:
    def test_invariant_scores_are_the_same_bits_whatever_is_beside(
        self, score: Score, tiny_reward: Path, tmp_path: Path
    ) -> None:
        rows = group_rows(24)
        write_lines(tmp_path / "all.jsonl", rows)
        write_lines(tmp_path / "some.jsonl", rows[5::3][::-1])
        for name in ("all", "some"):
            out = tmp_path / f"{name}-scored.jsonl"
            told = score(tiny_reward, tmp_path / f"{name}.jsonl", "-o", out, *QUICK, "--invariant")
            assert told.code == 0, told.err
            assert "attention back end aligned" in told.out
        whole, some = (read_lines(tmp_path / f"{name}-scored.jsonl") for name in ("all", "some"))
        assert some == whole[5::3][::-1]

    def test_plain_leaves_the_template_out(self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path) -> None:
        scores = []
        for name, words in (("chat", ()), ("plain", ("--plain",))):
            told = score(tiny_reward, data, "-o", tmp_path / f"{name}.jsonl", *QUICK, *words)
            assert told.code == 0, told.err
            assert ("every group is rendered as plain text, as asked" in told.err) is (name == "plain")
            scores.append([row["scores"] for row in read_lines(tmp_path / f"{name}.jsonl")])
        assert scores[0] != scores[1]

    @pytest.mark.parametrize(
        ("policy", "said", "rows", "scored"),
        [
            ("drop", "1 group dropped because a completion is too long", 1, 1),
            ("left", "1 completion truncated on the left", 2, 3),
            ("right", "1 completion truncated on the right", 2, 3),
            ("unscored", "1 completion unscored: too long", 2, 2),
        ],
    )
    def test_each_policy_for_what_is_too_long_is_counted_and_said(
        self, score: Score, tiny_reward: Path, tmp_path: Path, policy: str, said: str, rows: int, scored: int
    ) -> None:
        long = {"prompt": "w8 w9", "completions": ["w10", " ".join(["w11"] * 60)]}
        data = write_lines(tmp_path / "in.jsonl", [long, {"prompt": "w8", "completions": ["w9"]}])
        words = ("--max-length", "40", "--overlength", policy)
        told = score(tiny_reward, data, "-o", tmp_path / "out.jsonl", *QUICK, *words, "--json")
        assert told.code == 0, told.err
        assert said in told.err.splitlines()
        assert (told.json["rows"], told.json["scored"]) == (rows, scored)
        assert told.json["dropped"] == 2 - rows and told.json["unscored"] == (policy == "unscored")

    def test_the_system_message_is_kept_when_asked(self, score: Score, tiny_reward: Path, tmp_path: Path) -> None:
        turns = [{"role": "system", "content": "w8 w9"}, {"role": "user", "content": " ".join(["w10"] * 60)}]
        data = write_lines(tmp_path / "in.jsonl", [{"prompt": turns, "completions": ["w11"]}])
        found = []
        for name, words in (("a", ()), ("b", ("--keep-system",))):
            limits = ("--max-length", "40", "--overlength", "left", *words)
            assert score(tiny_reward, data, "-o", tmp_path / f"{name}.jsonl", *QUICK, *limits).code == 0
            found.append(read_lines(tmp_path / f"{name}.jsonl")[0]["scores"])
        assert found[0] != found[1]

    def test_gold_that_came_in_scores_is_kept_and_said(self, score: Score, tiny_reward: Path, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "in.jsonl", [{"prompt": "w8", "completions": ["w9", "w10"], "scores": [1, 0]}])
        told = score(tiny_reward, data, "-o", tmp_path / "out.jsonl", *QUICK, "--json")
        assert "1 row came with ratings in `scores`, which are kept in `gold_scores`" in told.err
        assert told.json["gold_rows"] == 1
        assert read_lines(tmp_path / "out.jsonl")[0]["gold_scores"] == [1, 0]


Break = Callable[[Path, Path], list[object]]
"""Makes a bad input in a folder, out of a good model; gives the words of the command."""


def edit_tensors(folder: Path, model: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    copy = Path(shutil.copytree(model, folder / "model"))
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def write_text(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


GOOD = '{"prompt": "w8", "chosen": "w9", "rejected": "w10"}\n'


def good(folder: Path) -> Path:
    return write_text(folder / "in.jsonl", GOOD * 3)


BAD_DATA: dict[str, tuple[Break, tuple[str, ...]]] = {
    "a missing file": (
        lambda at, model: [model, at / "gone.jsonl"],
        ("gone.jsonl: there is no such file or folder; check the path",),
    ),
    "nothing matches": (lambda at, model: [model, at / "*.parquet"], ("no file matches; check the path",)),
    "an empty file": (
        lambda at, model: [model, write_text(at / "in.jsonl", "")],
        ("in.jsonl: the file is empty, at least one row was needed; check how it was made",),
    ),
    "a file of blank lines": (
        lambda at, model: [model, write_text(at / "in.jsonl", "\n \n")],
        ("in.jsonl: no rows came, at least one was needed",),
    ),
    "broken JSON on line 3": (
        lambda at, model: [model, write_text(at / "in.jsonl", GOOD * 2 + '{"prompt": "w8", "chosen"\n' + GOOD)],
        ("in.jsonl, line 3: ", "broken JSON came", "mend"),
    ),
    "a row without completions": (
        lambda at, model: [model, write_text(at / "in.jsonl", '{"prompt": "w8"}\n')],
        ("in.jsonl: rows with the columns prompt came", "native rows are the nearest, and completions is missing"),
    ),
    "a row with no completion in its list": (
        lambda at, model: [model, write_text(at / "in.jsonl", '{"prompt": "w8", "completions": []}\n')],
        ("in.jsonl, line 1, field 'completions': a group without completions came, at least one was needed",),
    ),
    "a later row without completions": (
        lambda at, model: [
            model,
            write_text(at / "in.jsonl", '{"prompt": "w8", "completions": ["w9"]}\n' * 20 + '{"prompt": "w8"}\n'),
        ],
        ("in.jsonl, line 21, field 'completions': it is missing, a list was needed; the columns that came are prompt",),
    ),
    "unknown columns": (
        lambda at, model: [model, write_text(at / "in.jsonl", '{"question": "w8", "reply": "w9"}\n')],
        ("rows with the columns question, reply came, and no dialect fits", "--chosen-key", "or force a dialect with"),
    ),
    "a column that is named and not there": (
        lambda at, model: [model, good(at), "--chosen-key", "good"],
        ("it was named as the chosen column and is missing; the columns that came are prompt, chosen, rejected",),
    ),
    "a file of an unknown kind": (
        lambda at, model: [model, write_text(at / "in.xlsx", "x")],
        ("a file of the kind 'in.xlsx' came; one of .jsonl",),
    ),
    "bytes that are no text": (
        lambda at, model: [model, (at / "in.jsonl", (at / "in.jsonl").write_bytes(b'{"prompt": "\xff"}\n'))[0]],
        ("in.jsonl, line 1: the byte 0xFF came where UTF-8 text was needed; convert the file to UTF-8",),
    ),
    "a table that is none": (
        lambda at, model: [model, write_text(at / "in.parquet", "not a table at all, not even nearly")],
        ("in.parquet: the table cannot be read", "it is damaged, or not what its name says"),
    ),
    "a prompt longer than the context": (
        lambda at, model: [
            model,
            write_text(at / "in.jsonl", GOOD + json.dumps({"prompt": "w8 " * 600, "chosen": "w9", "rejected": "w10"})),
        ],
        (
            "in.jsonl, line 2",
            "completion 0: 605 tokens came with the prompt, at most 512 fit",
            "--overlength drop, left",
        ),
    ),
    "a limit beyond the context": (
        lambda at, model: [model, good(at), "--max-length", "4096"],
        ("max_length 4,096 came, but the model reads at most 512 tokens; lower it to that",),
    ),
    "an unknown format": (
        lambda at, model: [model, good(at), "--format", "parquet"],
        ("the format 'parquet' came, one of ultrafeedback",),
    ),
}

BAD_MODELS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "a reward model whose head is missing": (
        lambda at, model: [edit_tensors(at, model, lambda x: x.pop("score.weight")), good(at)],
        ("its reward head is missing (LlamaForSequenceClassification came without score.weight); save the model with",),
    ),
    "a head too many": (
        lambda at, model: [
            edit_tensors(at, model, lambda x: x.update({"lm_head.weight": torch.zeros(1, 32)})),
            good(at),
        ],
        ("two heads came (score.weight and lm_head.weight), one was needed; remove the one that is not the reward",),
    ),
    "a language model": (
        lambda at, model: [save_model(at / "lm", kind="lm"), good(at)],
        ("a language model came (LlamaForCausalLM), a reward model was needed; train one on it with: plaudit train",),
    ),
    "a two-label head": (
        lambda at, model: [save_model(at / "two", num_labels=2), good(at)],
        ("a head with 2 labels came (score.weight), one with 1 was needed; this is a classifier, not a reward model",),
    ),
    "a folder that is no model": (
        lambda at, model: [at, good(at)],
        ("no config.json there; a model folder holds a config.json",),
    ),
    "a folder that is not there": (
        lambda at, model: [at / "gone", good(at)],
        ("gone is not there; name a folder, a .gguf file, a model on the hub (owner/name), or smollm2",),
    ),
    "a file": (
        lambda at, model: [good(at), at / "in.jsonl"],
        ("in.jsonl is a file, a model is a folder (or a .gguf file); name the folder that holds it",),
    ),
    "a GGUF file that is not there": (
        lambda at, model: [at / "model.gguf", good(at)],
        ("model.gguf is not there; name a folder, a .gguf file, a model on the hub",),
    ),
    "a GGUF file that is not there, under a name that the hub could have": (
        lambda at, model: ["models/tiny.gguf", good(at)],
        ("models/tiny.gguf is not there; name a folder, a .gguf file, a model on the hub",),
    ),
    "a GGUF file that is none": (
        lambda at, model: [write_text(at / "model.gguf", "GGML"), good(at)],
        ("model.gguf is not a GGUF file (its first four bytes are not 'GGUF'); name another",),
    ),
    "a hub name while offline": (
        lambda at, model: ["owner/reward-model", good(at)],
        ("owner/reward-model is not a folder here, and the hub did not give it: the hub is not asked (offline), and no "
         "copy is on this machine; check the name and the network, or name a folder",),
    ),
    "weights that were cut off": (
        lambda at, model: [cut_off(edit_tensors(at, model, lambda x: None)), good(at)],
        ("model.safetensors: ", "bytes are there; copy or download it again"),
    ),
}  # fmt: skip


def cut_off(folder: Path) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return folder


BAD_OPTIONS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "a budget of nothing": (
        lambda at, model: [model, good(at), "--budget", "0"],
        ("budget 0 came, at least 1 was needed; leave it out to have it found",),
    ),
    "a window of nothing": (
        lambda at, model: [model, good(at), "--window", "-3"],
        ("window -3 came, at least 1 was needed",),
    ),
    "a budget for invariant scores": (
        lambda at, model: [model, good(at), "--invariant", "--budget", "512"],
        ("budget 512 came with invariant scores, whose packs have one fixed size; leave one out",),
    ),
    "a device that is not here": (
        lambda at, model: [model, good(at), "--device", "cuda:77"],
        ("device 'cuda:77' came; here there is cpu",),
    ),
    "a precision that there is not": (
        lambda at, model: [model, good(at), "--dtype", "float16"],
        ('Invalid value "float16" for --dtype', "(see plaudit score --help)"),
    ),
    "bad rows without a place": (
        lambda at, model: [model, good(at), "--bad-rows", "skip"],
        ("bad_rows='skip' came, error or skip=PATH was needed",),
    ),
    "ranks that cannot be": (
        lambda at, model: [model, good(at)],
        ("RANK=5 of WORLD_SIZE=2 came", "start the processes with torchrun, or unset both"),
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("name", [*BAD_DATA, *BAD_MODELS, *BAD_OPTIONS])
    def test_it_is_one_sentence_and_leaves_nothing_behind(
        self, score: Score, tiny_reward: Path, tmp_path: Path, name: str
    ) -> None:
        make, said = (BAD_DATA | BAD_MODELS | BAD_OPTIONS)[name]
        words = make(tmp_path, tiny_reward)
        before = names(tmp_path)
        environment = {"RANK": "5", "WORLD_SIZE": "2"} if name == "ranks that cannot be" else {}
        defaults = [] if {"--dtype", "--device"} & set(map(str, words)) else ["--dtype", "float32", "--device", "cpu"]
        sentence = one_line(score(*words, "-o", tmp_path / "out.jsonl", *defaults, env=environment), *said)
        assert names(tmp_path) == before, "something half-written is left"
        assert len(sentence) < 700

    @pytest.mark.parametrize(
        ("out", "said"),
        [
            ("gone/out.jsonl", "gone is not there; make it, or choose another place"),
            ("in.jsonl", "it is read, and writing would replace it; name another output"),
            ("out.xlsx", "a file of this kind cannot be written; .jsonl, .json, .csv, .parquet"),
            ("/dev/full", "No space left on device"),
        ],
    )
    def test_an_output_that_cannot_be_written(
        self, score: Score, tiny_reward: Path, tmp_path: Path, out: str, said: str
    ) -> None:
        if out == "/dev/full" and not Path(out).is_char_device():
            pytest.skip("no /dev/full on this system")
        data = good(tmp_path)
        told = score(tiny_reward, data, "-o", out if out.startswith("/") else tmp_path / out, *QUICK)
        assert told.code == 2 and told.out == ""
        assert said in told.err.splitlines()[-1] and told.err.splitlines()[-1].startswith("plaudit: error: ")
        assert names(tmp_path) == {"in.jsonl"} and data.read_text() == GOOD * 3

    def test_under_json_the_sentence_is_in_the_object_too(
        self, score: Score, tiny_reward: Path, tmp_path: Path
    ) -> None:
        told = score(tiny_reward, tmp_path / "gone.jsonl", "-o", tmp_path / "out.jsonl", "--json")
        assert told.code == 2
        assert told.json == {"error": told.err.removeprefix("plaudit: error: ").rstrip("\n"), "exit": 2}

    def test_rows_and_an_object_cannot_both_have_stdout(
        self, score: Score, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        told = score(tiny_reward, data, "-o", "-", *QUICK, "--json")
        assert told.code == 2 and told.json["exit"] == 2
        assert "--out - came with --json, and both are for stdout; name a file for the rows" in told.err

    def test_a_real_process_says_the_same(self, tmp_path: Path) -> None:
        folder = save_model(tmp_path / "lm", kind="lm")
        words = [
            sys.executable,
            "-m",
            "plaudit",
            "score",
            str(folder),
            str(good(tmp_path)),
            "-o",
            str(tmp_path / "o.csv"),
        ]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        one_line(
            Told(code=done.returncode, out=done.stdout, err=done.stderr), "a language model came (LlamaForCausalLM)"
        )
        assert names(tmp_path) == {"lm", "in.jsonl"}

    def test_debug_shows_where(self, score: Score, tiny_reward: Path, tmp_path: Path) -> None:
        told = score(tiny_reward, tmp_path / "gone.jsonl", "-o", tmp_path / "out.jsonl", "--debug")
        assert told.code == 2 and "Traceback" in told.err
        assert told.err.splitlines()[-1].startswith("plaudit: error: ")
