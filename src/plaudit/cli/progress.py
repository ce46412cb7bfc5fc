"""What a command says while it works: a bar on a terminal, quiet lines elsewhere, nothing on stdout by accident.

Part of the shell (see `plaudit.cli`). Invariant: under `--json`, stdout holds one JSON object and nothing else;
progress and notes go to stderr, where progress is silent under `--json` unless someone is looking (a terminal).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from plaudit.errors import ConfigError
from plaudit.terminal import clean_line, make_console, print_line, print_page

ELSEWHERE: dict[str, Any] = {}
"""What a command gives when another process of the same launch has its answer; nothing is written then."""

MOST_TITLE = 60
"""Characters of what a progress line is called; names of data and models stand in it."""

_json_mode = False


def is_json() -> bool:
    """Whether `--json` was given: stdout then belongs to the one object."""
    return _json_mode


@contextmanager
def json_mode(on: bool) -> Iterator[None]:
    """The time of one command, with or without `--json`."""
    global _json_mode
    before, _json_mode = _json_mode, on
    try:
        yield
    finally:
        _json_mode = before


def say(sentence: str) -> None:
    """A note for whoever watches, on stderr; also under `--json`, since nothing is silent."""
    print_line(sentence)


def say_notes(notes: Iterable[str]) -> None:
    """What a job had to say, each sentence once."""
    for note in dict.fromkeys(notes):
        say(note)


def show(result: Any) -> None:
    """The result for people (text, or a rich table) on stdout; left out under `--json`."""
    if is_json():
        return
    if isinstance(result, str):
        print_page(result)
    else:
        make_console(sys.stdout).print(result)


def report_beside(out: str) -> Callable[[Any], None]:
    """Where to tell the result of a job whose rows go to `out`: not on stdout if the rows have it for themselves."""
    if out not in ("-", "/dev/stdout"):
        return show
    if is_json():
        raise ConfigError(f"--out {out} came with --json, and both are for stdout; name a file for the rows")
    return partial(print_page, stream=sys.stderr)


class Progress:
    """How far a job is, on stderr: a rich bar on a terminal, else a line every `every_s` seconds and one at the end.

    `update(done, total, **fields)` may be called as often as one likes. A field's name is printed with `_per_` as `/`
    and `_` as a space (`unique_tokens_per_s=9120.0` is "9,120 unique tokens/s"); a field that is text is printed as it
    came. The rate of `unit` and the time left are worked out here.
    """

    def __init__(self, title: str, *, unit: str = "rows", total: int | None = None, every_s: float = 10.0) -> None:
        self.title, self.unit, self.total, self.every_s = clean_line(title, MOST_TITLE), unit, total, every_s
        self.done, self.first_done = 0, 0
        self.fields: dict[str, float | str] = {}
        self._start = self._said = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._start = self._said = time.monotonic()
        if sys.stderr.isatty():
            about = TextColumn(
                "{task.fields[about]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            )
            console = make_console(sys.stderr)
            narrow = console.width < 120
            title = TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=len(self.title))
            )
            columns = [title, *([] if narrow else [BarColumn(bar_width=20)]), about]
            self._bar = Bar(*columns, console=console, refresh_per_second=4)
            self._task = self._bar.add_task(self.title, total=self.total, about="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not is_json():
            say(f"{self.title}: {self.line(is_last=True)}")

    def start_at(self, done: int) -> None:
        """From now on: `done` were there before (a resumed job): they count as done, not towards the rate."""
        self.done = self.first_done = done
        self._start = self._said = time.monotonic()

    def update(self, done: int, total: int | None = None, **fields: float | str) -> None:
        """`done` of `total` so far, and anything else worth watching."""
        self.done, self.total = done, self.total if total is None else total
        self.fields.update(fields)
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, about=clean_line(self.line()))
        elif not is_json() and now - self._said >= self.every_s:
            self._said = now
            say(f"{self.title}: {self.line()}")

    def line(self, *, is_last: bool = False) -> str:
        """The state as one line: done, rate, the time left (or, at the end, the time it took), and the fields."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self.first_done) / elapsed
        parts = [f"{self.done:,}" + (f"/{self.total:,}" if self.total is not None else "") + f" {self.unit}"]
        parts += [f"{format_number(rate)} {self.unit}/s"] if rate else []
        if is_last:
            parts.append(f"took {format_seconds(elapsed)}")
        elif self.total is not None and rate > 0:
            parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        # Last, since a narrow terminal cuts there.
        parts += [format_field(name, value) for name, value in self.fields.items()]
        return ", ".join(parts)


def format_field(name: str, value: float | str) -> str:
    """A field as people read it: rates put the number first, the rest the name."""
    words = name.replace("_per_", "/").replace("_", " ")
    if isinstance(value, str):
        return f"{words} {value}"
    return f"{format_number(value)} {words}" if "/" in words else f"{words} {format_number(value)}"


def format_number(value: float) -> str:
    """Three significant digits, thousands apart, no exponent in the range people read."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """1.4 s, 2 min 05 s, 3 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
