"""What comes from data cannot act on a terminal: one place cleans it, and every command prints through that place."""

from __future__ import annotations

import ast
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import plaudit
from forks import Parent
from plaudit.cli.progress import Progress, say, show
from plaudit.cli.sheet import show_section
from plaudit.parts import say_on_stderr
from plaudit.terminal import MOST, clean_line, clean_page, make_console, print_line
from schooling import QUICK, graded_rows, write_rows
from tiny import save_model
from told import Told, hear

PACKAGE = Path(plaudit.__file__).parent
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066[bold red]x[/bold red]\r\x08\ttail\x00\u2028\u200b"
ACTING = {chr(c) for c in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028)}
PRINTERS = {
    "terminal.py": "it is the place",
    "cli/app.py": "JSON for machines, which holds control characters as escapes",
    "witness.py": "a process of its own, which answers in JSON and imports nothing of plaudit",
}


def acts(text: str) -> set[str]:
    """Characters of a text that a terminal acts on, line breaks left out."""
    return (ACTING - {"\n"}) & set(text)


def test_a_name_is_one_line_without_anything_that_acts() -> None:
    cleaned = clean_line(f"two\nlines {HOSTILE} \ud800")
    assert not acts(cleaned) and "\n" not in cleaned
    assert cleaned.startswith("two\\nlines \\x1b]0;owned\\x07") and "[bold red]x[/bold red]" in cleaned
    cleaned.encode("utf-8")
    assert clean_line(cleaned) == cleaned
    assert clean_line("Zürich, 北京, שלום, 👩‍🔬 e\u0301") == "Zürich, 北京, שלום, 👩‍🔬 e\u0301"
    assert clean_line("x" * 10_000) == "x" * (MOST - 1) + "…"
    assert clean_line("name", 3) == "na…"
    assert clean_page("a\nb\x1bc") == "a\nb\\x1bc"


def test_nothing_else_prints() -> None:
    """A `print`, a stream or a rich console elsewhere would send names of data to the terminal as they are."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if name not in PRINTERS else ():
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                if call in ("print", "Console") or call.startswith(("sys.stdout.write", "sys.stderr.write", "rich.")):
                    found.append(f"{name}:{node.lineno}: {call}")
                if call.endswith("TextColumn") and "markup" not in {keyword.arg for keyword in node.keywords}:
                    found.append(f"{name}:{node.lineno}: a column that reads markup")
    assert found == []


def test_sentences_and_sheets(capsys: pytest.CaptureFixture[str]) -> None:
    for tell in (say, say_on_stderr, print_line, show):
        tell(f"{HOSTILE}: 3 rows of https://h/x?token=abc")
    show_section(f"About {HOSTILE}", [(HOSTILE, HOSTILE), ("n" * 500, "word " * 100)], note=HOSTILE)
    table = Table()
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    show(table)
    out, err = capsys.readouterr()
    assert not acts(out) and not acts(err), (out, err)
    assert "[bold red]x" in out and "token=abc" not in out + err
    assert max(len(line) for line in out.splitlines()[1:]) <= 100
    assert len(err.splitlines()) == 3


def test_progress_lines_on_a_terminal_and_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(f"scoring with {HOSTILE}{'x' * 500}") as progress:
        progress.update(1, 2, **{HOSTILE: 0.5})
    err = capsys.readouterr().err
    assert not acts(err) and err.count("\n") == 1

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(f"scoring with {HOSTILE}") as progress:
        progress.update(1, 2, note=HOSTILE)
    drawn = screen.getvalue()
    assert "\x1b]0;owned" not in drawn and "\x9b" not in drawn and "\u202e" not in drawn and "\x07" not in drawn
    assert "[bold" in drawn


def test_a_console_draws_its_own_colours_and_nobody_elses() -> None:
    stream = io.StringIO()
    make_console(stream, force_terminal=True, color_system="standard").print(Text(f"a{HOSTILE}", style="bold"))
    drawn = stream.getvalue()
    assert drawn.startswith("\x1b[1m") and "\x1b]0;" not in drawn and "\x1b[2J" not in drawn


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    folder = tmp_path_factory.mktemp("commands")
    with contextlib.chdir(folder):
        made = Parent(folder, imports="plaudit.train, peft, transformers.trainer, accelerate, plaudit.evaluate")
    yield made
    made.close()


def test_every_command_on_hostile_names(commands: Parent, tmp_path: Path) -> None:
    """Names of files, subsets, ids, columns and models, and texts, that try to act on the terminal."""
    name = "\x1b]0;owned\x07\x1b[2J\u202e[bold]x[ro\nw]"

    def ask(*words: object) -> Told:
        told = hear(commands.start(*map(str, words)))
        assert not acts(told.out) and not acts(told.err), told
        assert "Traceback" not in told.err, told.err
        return told

    model = save_model(tmp_path / f"rm {name}")
    rows = [
        row | {"id": f"{name}{n}", "subset": f"{name} {n % 3}", name: name, "source": name}
        for n, row in enumerate(graded_rows(60))
    ]
    for row in rows[:6]:
        row["prompt"] = [{"role": "user", "content": f"w20 {name}"}]
    data, bad = tmp_path / f"data {name}.jsonl", tmp_path / f"bad {name}.jsonl"
    write_rows(data, rows)
    held = tmp_path / f"held {name}.jsonl"
    write_rows(held, [row | {"subset": f"{name} {n % 3}", "id": name} for n, row in enumerate(graded_rows(30, seed=4))])
    bad.write_text(json.dumps({name: name, "chosen": 5}) + "\n")
    run, out = tmp_path / f"run {name}", tmp_path / "out"
    wanted = {
        "train": ("train", model, data, "--out", run, "--eval", held, *QUICK, "train.max_steps=2"),
        "resume": ("train", model, data, "--out", run, "--eval", held, *QUICK, "train.max_steps=2", "--resume"),
        "dry run": ("train", model, data, "--out", tmp_path / f"n{name}", "--dry-run", *QUICK),
        "eval": ("eval", run / "model", data, "--out", out / f"eval{name}"),
        "compare": ("compare", run / "model", model, data, "--out", out / f"compare{name}"),
        "probe": ("probe", run / "model", data, "--out", out / f"probe{name}", "--limit", "4"),
        "score": ("score", run / "model", data, "-o", out / f"scored{name}.jsonl"),
        "select": ("select", "best", out / f"scored{name}.jsonl", "-o", out / f"best{name}.jsonl"),
        "bon": ("bon", out / f"scored{name}.jsonl", "--out", out / f"bon{name}"),
        "export": ("export", run, "--out", out / f"model{name}"),
    }
    out.mkdir()
    for command, words in wanted.items():
        told = ask(*words)
        assert told.code == 0, (command, told.err)
        assert told.out + told.err
    for words in (
        ("score", run / "model", bad, "-o", out / "x.jsonl"),
        ("score", run / "model", tmp_path / f"gone {name}", "-o", out / "x.jsonl"),
        ("score", model / "nothing", data, "-o", out / "x.jsonl"),
        ("train", model, data, "--out", run, f"train.epochs={name}"),
        ("train", model, data, "--out", run, f"{name}=1"),
        ("eval", name, data, "--out", out / "e"),
        (name,),
        ("score", "--", name),
        ("probe", run / "model", data, "--out", out / "p", "--only", name),
    ):
        assert ask(*words).code == 2, words
