"""What can be read only once is read whole: every command reads a pipe, a FIFO or stdin as it reads a file."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import Json, names, pair_rows, read_lines, write_lines
from plaudit.cli.app import main
from plaudit.corpus import CorpusSettings, Part, read_corpus, stream_corpus
from plaudit.errors import ConfigError, DataError, InputError
from plaudit.formats.spool import Spool
from plaudit.intake import Intake
from plaudit.parts import Ranks
from plaudit.scorefile import ScoreJob
from plaudit.sets import Wanted, lay_out, name_sets
from tiny import save_model

QUICK = ("--dtype", "float32", "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place of temporary files, which has to be empty in the end."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not [name for name in names(folder) if name.startswith("plaudit-")]


Open = Callable[[Path], str]


@pytest.fixture(params=["fifo", "substitution", "stdin"])
def pipe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Gives a name under which a file's content comes once: a FIFO's, one like bash's <(cat FILE), or `-`."""
    threads: list[threading.Thread] = []
    ends: list[int] = []

    def feed(target: str | int, data: bytes) -> None:
        with open(target, "wb") as stream:
            stream.write(data)

    def start(data: Path) -> str:
        content = data.read_bytes()
        if request.param == "stdin":
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            return "-"
        if request.param == "fifo":
            name = str(tmp_path / "pipes" / f"{len(threads)}{data.suffix}")
            os.makedirs(tmp_path / "pipes", exist_ok=True)
            os.mkfifo(name)
            threads.append(threading.Thread(target=feed, args=(name, content), daemon=True))
        else:
            read, write = os.pipe()
            ends.append(read)
            name = f"/dev/fd/{read}"
            threads.append(threading.Thread(target=feed, args=(write, content), daemon=True))
        threads[-1].start()
        return name

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "not everything was read"
    for end in ends:
        os.close(end)


def scored_rows(num: int) -> list[Json]:
    """More than any buffer holds."""
    return [
        {"id": f"q{n}", "prompt": f"Q{n} " + "x" * 100, "completions": ["a", "b"], "labels": [], "scores": [n, -n],
         "gold_scores": [n, -n]}
        for n in range(num)
    ]  # fmt: skip


@pytest.mark.timeout(60)
class TestCommands:
    def test_score(self, model: str, pipe: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = write_lines(tmp_path / "in.jsonl", pair_rows(400))
        assert main(["score", model, str(data), "-o", str(tmp_path / "whole.jsonl"), *QUICK]) == 0
        assert main(["score", model, pipe(data), "-o", str(tmp_path / "out.jsonl"), *QUICK]) == 0
        assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert names(tmp_path) - {"pipes"} == {"in.jsonl", "out.jsonl", "whole.jsonl"}

    @pytest.mark.parametrize("more", [("best",), ("best", "--bad-rows", "skip=/dev/null"), ("top", "--overall")])
    def test_select(self, pipe: Open, tmp_path: Path, more: tuple[str, ...]) -> None:
        data = write_lines(tmp_path / "in.jsonl", scored_rows(5000))
        found = []
        for name in (str(data), pipe(data)):
            argv = ["select", more[0], name, "-o", str(tmp_path / "out.jsonl"), *more[1:]]
            assert main(argv) == 0
            found.append(read_lines(tmp_path / "out.jsonl"))
        assert found[0] == found[1] and len(found[0]) == (2500 if "top" in more else 5000)
        assert names(tmp_path) - {"pipes"} == {"in.jsonl", "out.jsonl"}

    def test_bon(self, pipe: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = write_lines(tmp_path / "in.jsonl", scored_rows(1500))
        found = []
        for name in (str(data), pipe(data)):
            capsys.readouterr()
            assert main(["bon", name, "--out", str(tmp_path / "bon"), "--json"]) == 0
            found.append(json.loads(capsys.readouterr().out))
        assert found[0]["rows"] == found[1]["rows"] == 1500
        assert found[0]["curve"] == found[1]["curve"]
        assert [one["data"][0]["sha256"] for one in found] == [found[0]["data"][0]["sha256"]] * 2

    def test_eval_and_compare(self, model: str, pipe: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = write_lines(tmp_path / "in.jsonl", pair_rows(400))
        other = str(save_model(tmp_path / "other", seed=1))
        for words in (["eval", model], ["compare", model, other]):
            found = []
            for name in (f"x={data}", f"x={pipe(data)}"):
                capsys.readouterr()
                more = ["--no-probes"] if words[0] == "eval" else []
                assert main([*words, name, "--out", str(tmp_path / words[0]), *more, *QUICK]) == 0
                found.append(json.loads(capsys.readouterr().out))
            assert found[0]["data"][0]["groups"] == found[1]["data"][0]["groups"] == 400
            assert found[0]["data"][0]["sha256"] == found[1]["data"][0]["sha256"]

    def test_probe(self, model: str, pipe: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = write_lines(tmp_path / "in.jsonl", pair_rows(400))
        found = []
        for name in (str(data), pipe(data)):
            capsys.readouterr()
            argv = [
                "probe",
                model,
                name,
                "--out",
                str(tmp_path / "out"),
                "--only",
                "padding",
                "--limit",
                "20",
                "--plain",
            ]
            assert main([*argv, *QUICK]) == 0
            found.append(json.loads(capsys.readouterr().out))
        assert found[0]["groups_read"] == found[1]["groups_read"] == 400
        assert found[0]["data"][0]["sha256"] == found[1]["data"][0]["sha256"]


@pytest.mark.timeout(60)
class TestTraining:
    def test_a_corpus_in_memory(self, pipe: Open, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "in.jsonl", pair_rows(2000))
        found = [
            read_corpus(CorpusSettings(parts=(Part(path=name),), eval_share=0.0, seed=1))
            for name in (str(data), pipe(data))
        ]
        assert len(found[0].train) == len(found[1].train)
        assert {group.id for group in found[0].train} == {group.id for group in found[1].train}

    def test_a_corpus_that_is_streamed_can_be_read_again(self, pipe: Open, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "in.jsonl", pair_rows(2000))
        streams = [
            stream_corpus(CorpusSettings(parts=(Part(path=name),), eval_share=0.0, seed=1, head=50))
            for name in (str(data), pipe(data))
        ]
        for epoch in range(2):
            ids = [[group.id for group in one.open(epoch)] for one in streams]
            assert sorted(map(str, ids[0])) == sorted(map(str, ids[1])) and len(ids[0]) > 1900


def test_ranks_cannot_share_a_pipe(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    two = Ranks(rank=0, world=2)
    with pytest.raises(ConfigError, match="several ranks share one disk, and a pipe came"):
        ScoreJob([str(tmp_path / "fifo")], str(tmp_path / "out.jsonl"), ranks=two)
    from plaudit.intake import ReadSettings

    with pytest.raises(ConfigError, match="several ranks share one disk, and a pipe came"):
        lay_out(name_sets([str(tmp_path / "fifo")]), tmp_path / "s", Wanted(reading=ReadSettings()), two)


def test_a_pipe_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    name = str(tmp_path / "fifo")
    os.mkfifo(name)
    with pytest.raises(ConfigError, match="fifo came twice, and it can be read only once"):
        name_sets([f"a={name}", f"b={name}"])
    with pytest.raises(ConfigError, match="fifo came twice"):
        CorpusSettings(parts=(Part(path=name),), evals=(Part(path=name),))


class TestSpool:
    def test_a_copy_is_private_and_goes_with_its_owner(self, tmp_path: Path, pipe: Open, temporary: Path) -> None:
        name = pipe(write_lines(tmp_path / "in.jsonl", pair_rows(3)))
        spool = Spool()
        [source] = spool.resolve(name)
        assert source.is_copy and source.name == ("stdin" if name == "-" else name)
        [copy] = temporary.glob("plaudit-*")
        assert copy.stat().st_mode & 0o777 == 0o600 and copy.read_bytes() == (tmp_path / "in.jsonl").read_bytes()
        del spool
        assert not copy.exists()

    def test_a_pipe_of_another_layout_is_read_as_such(self, tmp_path: Path) -> None:
        name = tmp_path / "rows.csv"
        os.mkfifo(name)
        text = b"prompt,chosen,rejected\na,b,c\n"
        thread = threading.Thread(target=lambda: name.write_bytes(text), daemon=True)
        thread.start()
        intake = Intake([str(name)], str(tmp_path / "out.jsonl"))
        with intake.reader() as reader:
            assert [(row.file, row.raw["chosen"]) for row in reader] == [(str(name), "b")]
        intake.close()
        assert names(tmp_path) == {"rows.csv"}

    def test_an_empty_pipe_is_a_sentence(self, tmp_path: Path, pipe: Open) -> None:
        (tmp_path / "empty.jsonl").touch()
        with pytest.raises(DataError, match="nothing came, at least one row was needed; check what is piped in"):
            Intake([pipe(tmp_path / "empty.jsonl")], str(tmp_path / "out.jsonl"))

    def test_a_planted_link_is_not_written_to(
        self, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        (temporary / f".-.{os.getpid()}.stdin.jsonl").symlink_to(victim)
        text = json.dumps(pair_rows(1)[0]).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        intake = Intake(["-"], "-")
        assert victim.read_text() == "precious"
        intake.close()

    def test_a_size_limit_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "".join(json.dumps(row) + "\n" for row in scored_rows(5000)).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(InputError, match=r"is kept in .* until it is scored, which failed \(File too large\)"):
                Intake(["-"], str(tmp_path / "out.jsonl"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert names(tmp_path) == set()
