"""A report for people: titles, and under each its rows of name and text, readable from 40 columns on.

Part of the shell (see `plaudit.cli`). Invariant: a row's text is folded, and cut only after 4,000 characters; no line
is wider than the screen or ends in blanks; and what is printed is what came, whatever brackets it holds.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable

from rich.text import Text

from plaudit.cli.progress import show
from plaudit.redaction import hide_text
from plaudit.terminal import clean_line, make_console

NAME_WIDTH = 13
NARROW = 60
"""On a screen of fewer columns, text is folded under the name: a column of its own would be too thin to read."""

MARKS = {"+ ": "green", "- ": "red"}
"""What a name may begin with, and how it is coloured on a terminal."""

Row = tuple[str, str]


def show_section(title: str, rows: Iterable[Row], *, note: str = "") -> None:
    """Print a title, with a quiet note beside or under it, and its rows; then an empty line."""
    width = screen_width()
    title, note = clean_line(hide_text(title), 4 * width), clean_line(hide_text(note))
    indent = " " * (len(title) - len(title.lstrip()))
    page = Text()
    page.append("\n".join(textwrap.wrap(title, width, subsequent_indent=indent)), style="bold")
    if note and len(title) + len(note) + 2 <= width:
        page.append(f"  {note}", style="dim")
    elif note:
        under = textwrap.wrap(note, width, initial_indent=f"{indent}  ", subsequent_indent=f"{indent}  ")
        page.append("\n" + "\n".join(under), style="dim")
    for name, text in rows:
        page.append("\n")
        page.append_text(lay_row(name, text, width))
    show(page.append("\n"))


def lay_row(name: str, text: str, width: int) -> Text:
    """One row: the name, and the text beside it, folded under itself or, on a narrow screen, under the name."""
    name, text = clean_line(name, max(NAME_WIDTH, width - 4)), clean_line(hide_text(text))
    first = f"  {name:<{NAME_WIDTH}}  " if name or width >= NARROW else "    "
    margin = " " * (NAME_WIDTH + 4 if width >= NARROW else 4)
    words = text.split()
    if words and len(first) + len(words[0]) > width:
        # Broken after a few letters, a path would be of no use; on a line of its own it may be whole.
        lines = [first, *textwrap.wrap(text, width, initial_indent=margin, subsequent_indent=margin)]
    else:
        lines = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=margin, break_on_hyphens=False) or [
            first
        ]
    row = Text("\n".join(line.rstrip() for line in lines))
    row.stylize(MARKS.get(name[:2], ""), 0, len(name) + 2)
    return row


def screen_width() -> int:
    """Columns of the terminal that the result is shown on; 80 where it is not shown on one."""
    width: int = make_console(sys.stdout).width
    return width


def format_bytes(size: float) -> str:
    """1.5 GiB, 512 MiB: three digits and the unit that fits."""
    unit, step = ("GiB", 1 << 30) if size >= 1 << 30 else ("MiB", 1 << 20)
    return f"{size / step:.3g} {unit}" if size < 100 * step else f"{size / step:,.0f} {unit}"
