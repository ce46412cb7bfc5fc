"""Reports for people: folded on a screen of any width, nothing lost, nothing that is not there."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.cli.sheet import format_bytes, lay_row, show_section

WORDS = st.text("abcxyz[]()/_-.:'\"\\", min_size=1, max_size=90)
NAMES = st.text("abc+-_ ", max_size=24).map(str.strip)


@given(name=NAMES, words=st.lists(WORDS, max_size=40), width=st.integers(40, 120))
def test_a_row_fits_every_screen_and_nothing_of_it_is_lost(name: str, words: list[str], width: int) -> None:
    lines = lay_row(name, " ".join(words), width).plain.split("\n")
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert "".join("".join(lines).split()) == "".join(name.split()) + "".join(words)


@given(words=st.lists(st.text("abc-/", min_size=1, max_size=40), min_size=1), width=st.integers(60, 120))
def test_a_word_is_broken_only_where_no_line_could_hold_it(words: list[str], width: int) -> None:
    printed = lay_row("name", " ".join(words), width).plain.split()
    assert printed == ["name", *words]


def test_text_is_folded_under_itself_or_under_the_name() -> None:
    text = "one two three four five six seven eight nine ten eleven"
    assert lay_row("name", text, 60).plain == (
        "  name           one two three four five six seven eight\n                 nine ten eleven"
    )
    assert lay_row("name", text, 40).plain == (
        "  name           one two three four five\n    six seven eight nine ten eleven"
    )
    assert lay_row("", "more", 60).plain == "                 more"
    assert lay_row("", "more", 40).plain == "    more"
    assert lay_row("OMP_NUM_THREADS", "2", 40).plain == "  OMP_NUM_THREADS  2"
    assert lay_row("saved", "/a/long/path/to/the/folder/of/a/model", 42).plain == (
        "  saved\n    /a/long/path/to/the/folder/of/a/model"
    )


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith("\n\n")
    return out.removesuffix("\n\n").split("\n")


def test_a_note_stands_beside_the_title_or_under_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_section("Devices", [("cpu", "a CPU")], note="as they are seen from here, and now")
    assert shown(capsys) == ["Devices  as they are seen from here, and now", "  cpu            a CPU"]
    monkeypatch.setenv("COLUMNS", "40")
    show_section("Devices", [("cpu", "a CPU")], note="as they are seen from here, and now")
    assert shown(capsys) == ["Devices", "  as they are seen from here, and now", "  cpu            a CPU"]
    show_section("  A title that is longer than the screen is wide", [])
    assert shown(capsys) == ["  A title that is longer than the screen", "  is wide"]


def test_brackets_are_printed_as_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    show_section("[bold]", [("[red]", "plaudit[gguf] [/bold] [3]")])
    assert shown(capsys) == ["[bold]", "  [red]          plaudit[gguf] [/bold] [3]"]


def test_on_a_terminal_the_title_is_bold_the_mark_is_coloured_and_the_rest_is_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show_section("Title", [("+ good", "text"), ("- bad", "text"), ("name", "text")])
    bold, green, red, end = "\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
    assert shown(capsys) == [
        f"{bold}Title{end}",
        f"{green}  + good{end}         text",
        f"{red}  - bad{end}          text",
        "  name           text",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 MiB"), (1 << 20, "1 MiB"), (1536 << 20, "1.5 GiB"), (512 << 20, "512 MiB"), (23.456 * 2**30, "23.5 GiB"),
     (1 << 40, "1,024 GiB")],
)  # fmt: skip
def test_sizes_have_three_digits_and_a_unit(size: float, text: str) -> None:
    assert format_bytes(size) == text
