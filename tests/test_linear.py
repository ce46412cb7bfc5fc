"""Everything that scans text of users takes time in proportion to its length.

The patterns are found, not listed: every compiled pattern that a module of the package holds, and every literal that is
given to a function of `re`. The functions are the edits of all probes, and a list of those that take users' text.
Each sees texts of 1 MB that are built to be slow; smaller ones come first, so that a slow one fails soon.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import pkgutil
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit import Completion, Group, pair
from plaudit.cli.sheet import lay_row
from plaudit.config.reading import is_override
from plaudit.contamination import build_seen, find_overlap
from plaudit.encode import Encoder
from plaudit.errors import PlauditError
from plaudit.formats.jsontext import parse_json
from plaudit.formats.tables import read_cells
from plaudit.formats.transcript import read_transcript
from plaudit.keys import normalise_text, prompt_key, show_prompt
from plaudit.measure import TableBuilder
from plaudit.probes import measure_probes
from plaudit.probes.driver import ProbeSettings
from plaudit.probes.probe import Case
from plaudit.probes.prose import edit_prose, has_markup, has_verbatim, split_sentences
from plaudit.probes.table import PROBES
from plaudit.redaction import hide_text, hide_url
from plaudit.report.markup import clean
from plaudit.select.candidates import _shingle
from plaudit.surface import _find_edges, _measure_amounts
from plaudit.templates import freeze_dates
from plaudit.terminal import clean_line, clean_page

PACKAGE = Path(plaudit.__file__).parent
SIZES = ((40, 1.0), (20_000, 0.3), (1_000_000, 6.0))
"""Characters, and the seconds of processor time that one scan may take. At 20,000, what is quadratic takes seconds."""

UNITS = (
    "!", "A. ", " ", "\n", "(", "`", "*", "7", "- ", "é“你。😀", "a", "[", "[a](", "](", "1. ", "1.", ".a", "#", "_",
    "\n1. ", "a\n\n", "a \t", "=", "$", "http://", "<|x|>", "\n\nHuman: ", "' ", "strftime_now('", "\\", "{", "://a@",
    "token=", "hf_", "\x1b]0;",
)  # fmt: skip
ENDS = ("", "a!", "!")
"""What a run of units ends in: a pattern that fails at the very end has most to give back."""

BUILT_FROM_NAMES = {("files.py", "re.compile")}
"""Calls whose pattern is put together when it is used, with what they scan: names of files in one folder."""


def write_text(unit: str, end: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size] + end


def texts_of(size: int) -> Iterator[tuple[str, str]]:
    for unit in UNITS:
        for end in ENDS:
            yield f"{unit!r} and {end!r}", write_text(unit, end, size)


def mixed(size: int) -> str:
    """Long runs of every unit one after the other: for patterns, which leave nothing out after a find."""
    share = size // (len(UNITS) * len(ENDS))
    return "\n".join(text for _, text in texts_of(share))


def held(value: Any, depth: int = 0) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif isinstance(value, dict) and depth < 4:
        for item in value.values():
            yield from held(item, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)) and depth < 4:
        for item in value:
            yield from held(item, depth + 1)


def in_modules() -> Iterator[tuple[str, re.Pattern[str]]]:
    for module in pkgutil.walk_packages(plaudit.__path__, "plaudit."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            yield from ((f"{module.name}.{name}", pattern) for pattern in held(value))
            if isinstance(value, type) and value.__module__ == module.name:
                for inner, item in vars(value).items():
                    yield from ((f"{module.name}.{name}.{inner}", pattern) for pattern in held(item))


def in_calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Calls of functions of `re`: the file, the function, the call."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_re = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
            if is_re and isinstance(node.func.value, ast.Name) and node.func.value.id == "re":  # type: ignore[union-attr]
                yield path.relative_to(PACKAGE).as_posix(), f"re.{node.func.attr}", node  # type: ignore[union-attr]


@cache
def all_patterns() -> dict[str, re.Pattern[str]]:
    found: dict[tuple[str, int], tuple[str, re.Pattern[str]]] = {}
    for name, pattern in in_modules():
        found.setdefault((pattern.pattern, pattern.flags), (name, pattern))
    for file, function, call in in_calls():
        literal = call.args[0]
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str) and function != "re.escape":
            if function == "re.compile" and any(key[0] == literal.value for key in found):
                continue  # held by a module, with its flags
            pattern = re.compile(literal.value)
            found.setdefault((pattern.pattern, pattern.flags), (f"{file}:{call.lineno}", pattern))
    return dict(found.values())


def test_every_pattern_is_found() -> None:
    """A pattern that is built inside a function would be seen by no test: it is named above, with the reason."""
    in_functions = {
        (path.relative_to(PACKAGE).as_posix(), inner.lineno)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call)
    }
    hidden = {
        (file, function)
        for file, function, call in in_calls()
        if function != "re.escape"
        and not isinstance(call.args[0], ast.Constant)
        and (file, call.lineno) in in_functions
    }
    # `_compile` of the contractions is called at the top of its module, and what it gives is held there.
    assert hidden - {("probes/edits/contractions.py", "re.compile")} == BUILT_FROM_NAMES
    assert len(all_patterns()) >= 35


def time_of(scan: Callable[[str], Any], text: str) -> float:
    began = time.process_time()
    with contextlib.suppress(PlauditError, ValueError):  # refused is as good as read: the time counts
        scan(text)
    return time.process_time() - began


@cache
def anchored() -> set[str]:
    """Names of patterns, and lines of calls, by which a text is only matched from its beginning, never searched."""
    used: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
    for file, function, call in in_calls():
        used[f"{file}:{call.lineno}"] = {function.removeprefix("re.")}
    return {
        name for name, how in used.items() if how & {"match", "fullmatch"} and how <= {"match", "fullmatch", "pattern"}
    }


def run_pattern(name: str, pattern: re.Pattern[str]) -> Callable[[str], None]:
    is_searched = not {name, name.rpartition(".")[2]} & anchored()

    def scan(text: str) -> None:
        for _ in pattern.finditer(text) if is_searched else ():
            pass
        pattern.match(text)
        pattern.fullmatch(text)

    return scan


def check(scan: Callable[[str], Any], sizes: tuple[tuple[int, float], ...] = SIZES) -> None:
    """Raise AssertionError for the first text that takes longer than it may."""
    for size, most in sizes:
        for name, text in texts_of(size):
            # The lesser of two, where the first was too long: a busy machine is no slow pattern.
            taken = time_of(scan, text)
            assert taken < most or time_of(scan, text) < most, f"{size:,} characters of {name}: {taken:.2f} s"


def test_all_patterns_are_linear() -> None:
    for name, pattern in all_patterns().items():
        scan = run_pattern(name, pattern)
        try:
            check(scan, SIZES[:2])
        except AssertionError as error:
            raise AssertionError(f"{name}: {pattern.pattern!r}: {error}") from None
        taken = time_of(scan, mixed(1_000_000))
        assert taken < SIZES[-1][1], f"{name}: {pattern.pattern!r}: {taken:.2f} s for 1 MB of everything"


def group_of(text: str) -> Group:
    return pair(text, text, text + "x")


def overlap(text: str) -> None:
    seen = build_seen([group_of(text)])
    find_overlap(group_of(text + " and"), seen)


class _Tokenizer:
    """Enough of a tokenizer for the cut, which looks at texts only."""

    is_fast = True
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012


def find_cut(text: str) -> None:
    encoder = Encoder.__new__(Encoder)
    encoder.cuts = ("<|x|>", "\n\n", "!")
    encoder.find_cut([text, "b" + text, text])
    encoder.find_cut([text, text[: len(text) // 2] + "b" + text])


def build_table(text: str) -> None:
    builder = TableBuilder(seed=0)
    builder.add(group_of(text), [1.0, 2.0])
    builder.finish()


FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "split_sentences": split_sentences,
    "edit_prose": lambda text: edit_prose(text, str.upper),
    "has_verbatim": has_verbatim,
    "has_markup": has_markup,
    "prompt_key": lambda text: (prompt_key(group_of(text)), prompt_key(pair("", text + "a", text + "b"))),
    "show_prompt": lambda text: show_prompt(group_of(text)),
    "normalise_text": normalise_text,
    "surface": lambda text: (_measure_amounts(text, 1), _find_edges(text)),
    "contamination": overlap,
    "transcript": lambda text: read_transcript("Human: " + text, "chosen"),
    "json": lambda text: parse_json(json.dumps({"prompt": text, text[:1000]: [text]})),
    "cells": lambda text: read_cells(["prompt", "scores"], [text, text]),
    "turns in a cell": lambda text: read_cells(["prompt"], ["[{" + text]),
    "shingles": _shingle,
    "page": clean,
    "template": freeze_dates,
    "override": is_override,
    "cut": find_cut,
    "table": build_table,
    "secrets": lambda text: (hide_text(text), hide_text(text, is_setting=True), hide_url(f"https://{text}")),
    "a line": clean_line,
    "a page on a screen": clean_page,
    "a row of a sheet": lambda text: lay_row(text, text, 80),
}
"""What takes text of users beside the edits: a new function of this kind gets a line here."""


def scans() -> dict[str, Callable[[str], Any]]:
    edits = {
        # An answer is never blank.
        name: lambda text, edit=probe.edit: edit(Case(prompt=text, answer="x" + text, other=text), random.Random(0))
        for name, probe in PROBES.items()
        if probe.edit is not None
    }
    return {**FUNCTIONS, **edits}


@pytest.mark.parametrize("name", sorted(scans()))
def test_functions_are_linear(name: str) -> None:
    scan = scans()[name]
    check(scan, SIZES[:2])
    size, most = SIZES[-1]
    for text in (write_text("!", "a!", size), write_text("A. ", "", size)):
        taken = time_of(scan, text)
        assert taken < most, f"{text[:8]!r}...: {taken:.2f} s for 1 MB"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(scans()))
def test_functions_are_linear_on_a_megabyte_of_everything(name: str) -> None:
    check(scans()[name])


class _Lengths:
    """Scores a completion by its length."""

    def score_groups(self, groups: Any) -> Iterator[Any]:
        for group in groups:
            yield type("Scored", (), {"scores": [float(len(c.text)) for c in group.completions]})()


@pytest.mark.parametrize("odd", ["!" * 60_000, "A. " * 20_000, "1. " * 20_000, "[a](" * 15_000])
def test_probes_finish_when_one_answer_is_degenerate(odd: str) -> None:
    groups = [pair(f"Question {n}?", f"The answer is {n}, and no other.", "None.") for n in range(11)]
    groups.append(Group(prompt="And?", completions=(Completion(content=odd), Completion(content="No."))))
    began = time.process_time()
    report = measure_probes(_Lengths(), groups, settings=ProbeSettings())
    assert report.num_prompts == 12
    assert time.process_time() - began < 10
