"""The shell's contract, with commands made for the test: exit codes, one sentence, one object, and who sees what."""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from plaudit.cli import app as shell
from plaudit.cli.app import Command, main, plain, split_flags
from plaudit.cli.options import Dtype, Out
from plaudit.cli.progress import Progress, format_field, format_number, format_seconds, is_json, json_mode, say, show
from plaudit.errors import DataError, InternalError

SOURCE = Path(shell.__file__).parents[2]
Install = Callable[[Callable[..., Any]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make a function a command of this test's shell."""

    def add(function: Callable[..., Any]) -> None:
        module = types.ModuleType(f"plaudit.cli.{function.__name__}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        command = Command(function.__name__.replace("_", "-"), "Made for a test.")
        monkeypatch.setattr(shell, "COMMANDS", (*shell.COMMANDS, command))

    monkeypatch.setattr(shell, "silence_libraries", lambda is_debug: None)
    yield add


def best_of(
    model: str,
    data: list[str],
    /,
    *,
    out: Out,
    dtype: Dtype = "auto",
    num: int = 4,
    how: Literal["top", "pairs"] = "top",
) -> dict[str, Any]:
    """Choose among answers.

    For example:

        plaudit best-of smollm2 a.jsonl -o b.jsonl

    Parameters
    ----------
    num
        How many to keep.
    """
    show("a table for people")
    say("a note")
    return {"model": model, "data": data, "out": out, "dtype": dtype, "num": num, "how": how}


def test_a_command_gets_its_arguments_and_people_get_the_table(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(best_of)
    assert main(["best-of", "m", "a", "b", "-o", "x"]) == 0
    assert capsys.readouterr() == ("a table for people\n", "a note\n")


@pytest.mark.parametrize("where", [0, 1, 3, 6], ids=["first", "after the command", "between", "last"])
def test_json_is_one_object_and_nothing_else_wherever_it_stands(
    install: Install, capsys: pytest.CaptureFixture[str], where: int
) -> None:
    install(best_of)
    words = ["best-of", "m", "a", "b", "-o", "x"]
    assert main([*words[:where], "--json", *words[where:]]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"model": "m", "data": ["a", "b"], "out": "x", "dtype": "auto", "num": 4, "how": "top"}
    assert out.count("\n") == 1
    assert err == "a note\n"
    assert not is_json()


def test_what_others_print_is_kept_from_the_object(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def chatty() -> dict[str, float]:
        print("Loading weights")
        return {"accuracy": math.nan, "n": 3}

    install(chatty)
    assert main(["chatty", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == '{"accuracy": null, "n": 3}\n'
    assert err == "Loading weights\n"


def test_a_command_without_a_result_still_gives_an_object(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def quiet() -> None:
        return None

    install(quiet)
    assert main(["quiet", "--json"]) == 0
    assert capsys.readouterr().out == "{}\n"


FAILURES: list[tuple[BaseException, int, str]] = [
    (DataError("no prompt came", file="a.jsonl", line=3), 2, "error: a.jsonl, line 3: no prompt came"),
    (InternalError("scores moved"), 1, "error: scores moved"),
    (
        OSError(errno.ENOSPC, "No space left", "out.jsonl"),
        2,
        "error: the disk is full while writing out.jsonl; free some",
    ),
    (OSError(errno.ENOSPC, "No space left"), 2, "error: the disk is full; free some space"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.jsonl"), 2, "error: a.jsonl: No such file; name a path"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied; name a path"),
    (OSError(errno.EIO, "Input/output error"), 1, "this is our fault, not yours (--debug shows where)"),
    (RuntimeError("first\nsecond"), 1, "error: RuntimeError: first second; this is our fault, not yours"),
    (ZeroDivisionError(), 1, "error: ZeroDivisionError; this is our fault"),
    (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
]


@pytest.mark.parametrize(("error", "code", "says"), FAILURES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("is_json", [False, True], ids=["people", "json"])
def test_an_error_is_one_sentence_and_an_exit_code(
    install: Install, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str, is_json: bool
) -> None:
    def fail() -> None:
        raise error

    install(fail)
    assert main(["fail", *(["--json"] if is_json else [])]) == code
    out, err = capsys.readouterr()
    assert says in err
    assert err.startswith("plaudit: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    if is_json:
        told = json.loads(out)
        assert told["exit"] == code
        assert told["error"] == err.removeprefix("plaudit: ").removeprefix("error: ").rstrip("\n")
    else:
        assert out == ""


def test_debug_shows_where(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("deep down")

    install(fail)
    assert main(["fail", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in fail" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["best-off", "m"], "'best-off' is not a command of plaudit; did you mean 'best-of'?"),
        (
            ["quux"],
            "'quux' is not a command of plaudit; the commands are demo, train, eval, compare, score, select, "
            "bon, probe, export, doctor",
        ),
        (["--hlep"], "did you mean '--help'?"),
        (["best-of"], "MODEL is missing; for example: plaudit best-of smollm2 a.jsonl -o b.jsonl (see"),
        (["best-of", "m", "a"], "--out is missing; for example: plaudit best-of smollm2 a.jsonl -o b.jsonl (see"),
        (["best-of", "m", "a", "--ot", "x"], "Unknown option: --ot. Did you mean --out?"),
        (["best-of", "m", "a", "-o", "x", "--dtype", "float23"], 'Did you mean "float32"?'),
        (["best-of", "m", "a", "-o", "x", "--num", "many"], 'unable to convert "many" into int'),
        (["best-of", "m", "a", "-o"], "-o came without a value; for example: plaudit best-of"),
    ],
)
def test_a_wrong_word_is_exit_2_and_the_nearest_right_one(
    install: Install, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    install(best_of)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert "--help)" in err
    assert (out, err.count("\n")) == ("", 1)


def lonely(word: str = "", /) -> None:
    """One word,
    and no more.

    For example:

        plaudit lonely one
        plaudit lonely

    Parameters
    ----------
    word
        The word.
    """


def test_a_word_too_many_is_named(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(lonely)
    assert main(["lonely", "a", "b", "c d"]) == 2
    said = "plaudit: error: 'b c d' came, and nothing takes it (see plaudit lonely --help)\n"
    assert capsys.readouterr() == ("", said)


def test_help_folds_paragraphs_and_leaves_examples_alone(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(lonely)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["lonely", "--help"]) == 0
    out = capsys.readouterr().out
    assert "\nOne word, and no more.\n\nFor example:\n\n    plaudit lonely one\n    plaudit lonely\n\n" in out
    assert out.count("The word.") == 1


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_help_fits_the_terminal(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    install(best_of)
    monkeypatch.setenv("COLUMNS", width)
    for words in (["--help"], ["best-of", "--help"], []):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert max(len(line) for line in out.splitlines()) <= int(width)
        assert "--json" in out
        assert err == ""


def test_help_shows_the_example_the_choices_and_no_empty_defaults(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(best_of)
    assert main(["best-of", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (
        "plaudit best-of smollm2 a.jsonl -o b.jsonl",
        "How many to keep.",
        "[default: 4]",
        "[choices: top, pairs]",
    ):
        assert text in out
    assert "None]" not in out


def test_help_of_the_table_imports_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shell.importlib, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command.name in out for command in shell.COMMANDS)


def test_no_colour_when_asked_for_none() -> None:
    code = "import sys; from plaudit.cli.app import main; sys.exit(main(['--help']))"
    for extra, has_colour in (({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)):
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", **extra}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert ("\x1b[3" in done.stdout) is has_colour


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import sys, types; from plaudit.cli import app\n"
        "from plaudit.cli.progress import show\n"
        "m = types.ModuleType('plaudit.cli.flood'); sys.modules[m.__name__] = m\n"
        "m.flood = lambda: [show('x' * 1000) for _ in range(1000)] and None\n"
        "app.COMMANDS = (app.Command('flood', 'x'),)\n"
        "sys.exit(app.main(['flood']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, env=environment) as flood:
        assert flood.stdout is not None
        assert flood.stderr is not None
        flood.stdout.read(10)
        flood.stdout.close()
        assert flood.stderr.read() == b""
        assert flood.wait() == 141


def test_python_dash_m_is_the_same_door() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    words = [sys.executable, "-m", "plaudit", "scor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"].startswith("'scor' is not a command of plaudit; did you mean 'score'?")


def test_a_lone_dash_is_a_word(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(best_of)
    for words in (["m", "-", "a", "-o", "-"], ["-o", "-", "m", "-", "a"], ["m", "--out=-", "--", "-", "a"]):
        assert main(["best-of", "--json", *words]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["data"], told["out"]) == (["-", "a"], "-")
    assert main(["best-of", "m", "a", "-o", "x", "--how", "-"]) == 2
    assert 'Invalid value "-" for --how' in capsys.readouterr().err
    assert main(["-"]) == 2
    assert capsys.readouterr().err.startswith("plaudit: error: '-' is not a command of plaudit")


def test_flags_after_a_double_dash_are_not_ours() -> None:
    assert split_flags(["--debug", "score", "--json"]) == (["score"], True, True)
    assert split_flags(["score", "--", "--json"]) == (["score", "--", "--json"], False, False)


def test_the_noise_of_libraries_is_kept_away_unless_a_fault_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shell.warnings, "filterwarnings", lambda *_: None)
    monkeypatch.setattr(shell.logging.getLogger(), "setLevel", lambda *_: None)
    shell.silence_libraries(True)
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    monkeypatch.setattr(os, "environ", dict(os.environ))
    shell.silence_libraries(False)
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"


@pytest.mark.parametrize(
    ("said", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_make_room_unless_told_otherwise(
    said: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    monkeypatch.setattr(os, "environ", kept | said)
    shell.share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@dataclass(frozen=True)
class Record:
    path: Path
    value: float


def test_json_knows_records_paths_arrays_and_what_is_no_number() -> None:
    numpy = importlib.import_module("numpy")
    value = {"r": Record(path=Path("a/b"), value=-math.inf), 3: (1, None, True), "np": numpy.float32(0.5), "s": {"x"}}
    assert plain(value) == {"r": {"path": "a/b", "value": None}, "3": [1, None, True], "np": 0.5, "s": ["x"]}
    score = 0.1 + 0.2
    assert json.loads(json.dumps(plain({"score": score})))["score"] == score


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("plaudit.cli.progress.time", clock)
    return clock


def test_quiet_lines_say_how_far_how_fast_and_how_long(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("scoring", unit="rows", total=4000) as progress:
        clock.now += 4
        progress.update(400, sharing=1.5)
        assert capsys.readouterr().err == ""
        clock.now += 6
        progress.update(1000, unique_tokens_per_s=9120.4, model="m")
        clock.now += 1
        progress.update(1100)
        line = "scoring: 1,000/4,000 rows, 100 rows/s, 30 s left, sharing 1.5, 9,120 unique tokens/s, model m\n"
        assert capsys.readouterr().err == line
        progress.update(4000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "scoring: 4,000/4,000 rows, 364 rows/s, took 11 s, sharing 1.5, 9,120 unique tokens/s, model m\n"


def test_a_resumed_job_counts_its_rate_from_where_it_began(clock: Clock) -> None:
    with Progress("scoring", total=100) as progress:
        progress.start_at(90)
        clock.now += 5
        progress.update(95)
        assert progress.line() == "95/100 rows, 1 rows/s, 5.0 s left"


def test_under_json_progress_is_silent_and_notes_are_not(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with json_mode(True), Progress("scoring") as progress:
        clock.now += 60
        progress.update(5)
        say("one row was skipped")
        show("a table")
    assert capsys.readouterr() == ("", "one row was skipped\n")


def test_a_failing_job_does_not_say_that_it_is_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), Progress("scoring"):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", ["40", "120"])
def test_on_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("scoring", total=10) as progress:
        progress.update(10, sharing=1.62, unique_tokens_per_s=12345.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "scoring" in err
    assert "10/10 rows" in err
    assert ("━" in err) is (columns == "120")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567, "1,234,567"), (1.62049, "1.62"), (0.00123, "0.00123"), (99.96, "100")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.44, "1.4 s"), (59.6, "60 s"), (125, "2 min 05 s"), (3600 * 3 + 60 * 7, "3 h 07 min")]
)
def test_times_are_short(value: float, text: str) -> None:
    assert format_seconds(value) == text


def test_fields_read_as_people_say_them() -> None:
    assert format_field("unique_tokens_per_s", 812.0) == "812 unique tokens/s"
    assert format_field("sharing", 2) == "sharing 2"
    assert format_field("device", "cpu") == "device cpu"
