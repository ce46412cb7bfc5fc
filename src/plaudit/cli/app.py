"""The shell: the table of commands, and the contract that all of them keep.

Part of the command line (see `plaudit.cli` for how a command is written). Invariant: exit 0 is done, 1 our fault, 2 the
user's input, 130 Ctrl-C; an error is one sentence on stderr (and `{"error": ...}` on stdout under `--json`), and its
traceback is shown only under `--debug`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import importlib
import inspect
import json
import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cyclopts import App, Argument, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from plaudit import __version__
from plaudit.cli.progress import ELSEWHERE, json_mode
from plaudit.errors import InputError, PlauditError
from plaudit.redaction import hide_command, hide_report, hide_text
from plaudit.terminal import print_line, print_page


@dataclass(frozen=True, slots=True)
class Command:
    """A line of the table; `plaudit best-of` is the function `best_of` in `plaudit/cli/best_of.py`."""

    name: str
    help: str

    @property
    def target(self) -> str:
        """Where its function is, as `module:function`."""
        word = self.name.replace("-", "_")
        return f"plaudit.cli.{word}:{word}"

    def load(self) -> Callable[..., Any]:
        """Its function, imported now."""
        module, function = self.target.split(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return loaded


COMMANDS: tuple[Command, ...] = (
    Command("demo", "The whole story on the embedded model; no network."),
    Command("train", "Train a reward model on preference data, and prove what is saved."),
    Command("eval", "Measure a reward model: accuracy beside what guessing gets, calibration, length, probes."),
    Command("compare", "Two models or more on the same data: who is better, by how much, and where."),
    Command("score", "Score the completions of a file with a reward model."),
    Command("select", "The best of scored completions, or pairs of them, as rows to learn from."),
    Command("bon", "What the best of n is worth, for every n, from one scored sample."),
    Command("probe", "Edits of answers: what moves a model's scores that should not, and what should and does not."),
    Command("export", "A run or a model as the folder that every consumer loads, proven."),
    Command("doctor", "Versions, devices, matmul peak, and which attention back end is used, and why."),
)

DASH = "\0"
"""A lone `-` while arguments are parsed: it is a word, stdin or stdout, and the parser would take it for an option."""

EPILOGUE = "Every command takes --json (one JSON object on stdout) and --debug (tracebacks)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """How a failure is told: the exit code and the sentence."""

    code: int
    sentence: str


def find_command(tokens: Sequence[str]) -> Command | None:
    """The command that the arguments begin with, if they begin with one."""
    return next((command for command in COMMANDS if tokens and command.name == tokens[0]), None)


def build_app(tokens: Sequence[str]) -> App:
    """The parser for these arguments: of one command if they begin with one (it is imported now), else of the table."""
    named = find_command(tokens)
    app = App(
        name=f"plaudit {named.name}" if named else "plaudit",
        help=None if named else "Preference data in, a reward model that people can trust and use out.",
        help_epilogue=EPILOGUE,
        version=__version__,
        version_flags=() if named else ("--version",),
        default_parameter=Parameter(negative="", show_default=_shown_default),
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    if named:
        function = named.load()
        app.help = page_of(function)
        app.default(function)
        app["--help"].show = False
        return app
    for command in COMMANDS:
        app.command(command.target, name=command.name, help=command.help)
    return app


def page_of(function: Callable[..., Any]) -> str:
    """A command's docstring as its page of help: paragraphs for the terminal to fold, examples as they stand."""
    text = (inspect.getdoc(function) or "").split("\nParameters\n---")[0].strip()
    parts = text.split("\n\n")
    return "\n\n".join(part if part.startswith("    ") else " ".join(part.split()) for part in parts)


def _shown_default(value: Any) -> str | None:
    """A default worth a reader's time: not that a flag is off, or that nothing was given."""
    return None if value is None or value is False or value == [] or value == () else str(value)


def check_command(tokens: Sequence[str]) -> None:
    """Raise InputError if the arguments begin with a word that is no command, naming the nearest."""
    names = [command.name for command in COMMANDS]
    if not tokens or tokens[0] in (*names, "--help", "-h", "--version"):
        return
    near = difflib.get_close_matches(tokens[0], [*names, "--help", "--version"], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(names)}"
    raise InputError(f"{tokens[0]!r} is not a command of plaudit; {hint} (see plaudit --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """The `plaudit` command; gives the exit code (the console script exits with it)."""
    tokens, wants_json, wants_debug = split_flags(sys.argv[1:] if argv is None else argv)
    silence_libraries(wants_debug)
    share_cores()
    stdout = sys.stdout
    try:
        with json_mode(wants_json), machine_stdout(wants_json):
            result = dispatch(tokens)
        if wants_json and result is not ELSEWHERE:
            write_json(stdout, {} if result is None else result)
        stdout.flush()
        return 0
    except BrokenPipeError:
        # Whoever read us has left (`| head`): nothing to tell, and the exit must not try to flush to them either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        failure = explain(error, tokens)
        if wants_debug:
            print_page("".join(traceback.format_exception(error)), stream=sys.stderr)
        print_line(f"plaudit: {failure.sentence}")
        if wants_json:
            sentence = hide_text(failure.sentence.removeprefix("error: "))
            write_json(stdout, {"error": sentence, "exit": failure.code})
        return failure.code


def dispatch(tokens: Sequence[str]) -> Any:
    """Call what the arguments name, or print the help they ask for."""
    check_command(tokens)
    app = build_app(tokens)
    own = tokens[1:] if app.default_command else tokens
    command, bound, _ = app.parse_args([DASH if token == "-" else token for token in own])
    given = {name: _undashed(value) for name, value in bound.arguments.items()}
    bound.arguments.update(given)
    return command(*bound.args, **bound.kwargs)


def _undashed(value: Any) -> Any:
    """A parsed argument, with the dash that stood for stdin or stdout put back."""
    if isinstance(value, list):
        return [_undashed(item) for item in value]
    return "-" if isinstance(value, str) and value == DASH else value


def split_flags(argv: Sequence[str]) -> tuple[list[str], bool, bool]:
    """The arguments without `--json` and `--debug` (anywhere before a `--`), and whether each was there."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    ours = argv[:end]
    tokens = [a for a in ours if a not in ("--json", "--debug")] + list(argv[end:])
    return tokens, "--json" in ours, "--debug" in ours


def explain(error: BaseException, tokens: Sequence[str]) -> Failure:
    """The exit code and the sentence that an error deserves."""
    if isinstance(error, KeyboardInterrupt):
        return Failure(code=130, sentence="stopped by Ctrl-C")
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        words = " ".join(hide_command(error.unused_tokens)).replace(DASH, "-")
        return Failure(code=2, sentence=f"error: {words!r} came, and nothing takes it ({_help_hint(tokens)})")
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return Failure(
            code=2, sentence=f"error: {_what_is_missing(error, error.argument, tokens)} ({_help_hint(tokens)})"
        )
    if isinstance(error, CycloptsError):
        return Failure(code=2, sentence=f"error: {one_line(error)} ({_help_hint(tokens)})")
    if isinstance(error, PlauditError):
        return Failure(code=2 if isinstance(error, InputError) else 1, sentence=f"error: {one_line(error)}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return Failure(
            code=2, sentence=f"error: the disk is full{where}; free some space and run the same command again"
        )
    if isinstance(
        error, FileNotFoundError | PermissionError | FileExistsError | IsADirectoryError | NotADirectoryError
    ):
        what = f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
        return Failure(code=2, sentence=f"error: {what}; name a path that this command can use")
    what = f"{type(error).__name__}: {one_line(error)}" if one_line(error) else type(error).__name__
    return Failure(code=1, sentence=f"error: {what}; this is our fault, not yours (--debug shows where)")


def _what_is_missing(error: MissingArgumentError, argument: Argument, tokens: Sequence[str]) -> str:
    """Which argument did not come, or came without its value, and a command line that has them all."""
    keyword = error.keyword or next((token.keyword for token in argument.tokens if token.keyword), None)
    what = f"{keyword} came without a value" if keyword else f"{argument.name} is missing"
    command = find_command(tokens)
    page = page_of(command.load()) if command else ""
    example = next((line.strip() for line in page.splitlines() if line.startswith("    plaudit")), "")
    return f"{what}; for example: {example}" if example else what


def one_line(error: BaseException) -> str:
    """The error's words on one line."""
    return " ".join(str(error).replace(DASH, "-").split())


def _help_hint(tokens: Sequence[str]) -> str:
    return f"see plaudit {tokens[0]} --help" if find_command(tokens) else "see plaudit --help"


@contextlib.contextmanager
def machine_stdout(is_json: bool) -> Iterator[None]:
    """Under `--json`, whatever anything prints goes to stderr: stdout is kept for the one object."""
    if not is_json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def silence_libraries(is_debug: bool) -> None:
    """Keep other libraries' bars and warnings from the screen, unless someone is looking for a fault."""
    if is_debug:
        return
    # Environment, not calls: a call would import them, and help would take seconds.
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    # It writes on stdout, at a level that it sets itself when it is imported.
    logging.getLogger("DeepSpeed").addFilter(_is_grave)


def share_cores() -> None:
    """Have threads that wait for each other sleep soon, where nobody has said otherwise; read when torch is imported.

    OpenMP's threads spin for milliseconds at the end of each small product. Where another process wants the cores, it
    is the thread that is waited for which gets none: two scoring runs on two cores took 40 times as long as one.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _is_grave(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def write_json(stream: TextIO, value: Any) -> None:
    """One object, one line; what JSON has no word for (NaN, infinity) is null."""
    stream.write(json.dumps(hide_report(plain(value)), ensure_ascii=False, allow_nan=False) + "\n")
    stream.flush()


def plain(value: Any) -> Any:
    """A value as JSON knows it: records become objects, paths and other things their text, non-finite numbers null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return plain(value.item()) if hasattr(value, "item") else str(value)
