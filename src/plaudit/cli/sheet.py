"""A report for people: titles, and under each its rows of name and text, readable from 40 columns on.

Part of the shell (see `plaudit.cli`). Invariant: a row's text is folded under itself and never cut, and it is printed
as it is, whatever brackets it holds; no line ends in blanks.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from plaudit.cli.progress import show

NAME_WIDTH = 13
MARKS = {"+ ": "green", "- ": "red"}
"""What a name may begin with, and how it is coloured on a terminal."""

Row = tuple[str, str]


def show_section(title: str, rows: Iterable[Row], *, note: str = "") -> None:
    """Print a title, with a quiet note beside it where there is room, and its rows; then an empty line."""
    width = screen_width()
    indent = " " * (len(title) - len(title.lstrip()))
    page = Text("\n".join(textwrap.wrap(title, width, subsequent_indent=indent)), style="bold")
    if note and len(title) + len(note) + 2 <= width:
        page = Text.assemble((title, "bold"), (f"  {note}", "dim"))
    for name, text in rows:
        page.append("\n")
        page.append_text(lay_row(name, text, width))
    show(page.append("\n"))


def lay_row(name: str, text: str, width: int) -> Text:
    """One row: the name, and the text folded under itself; a name too long for its column has a line of its own."""
    margin = " " * (NAME_WIDTH + 4)
    lines = textwrap.wrap(text, max(width - len(margin), 16), break_on_hyphens=False) or [""]
    first = f"  {name:<{NAME_WIDTH}}  "
    head = [first.rstrip(), margin + lines[0]] if len(name) > NAME_WIDTH else [first + lines[0]]
    row = Text("\n".join([*head, *(margin + line for line in lines[1:])]).rstrip())
    row.stylize(MARKS.get(name[:2], ""), 0, len(name) + 2)
    return row


def screen_width() -> int:
    """Columns of the terminal that the result is shown on; 80 where it is not shown on one."""
    return Console().width


def format_bytes(size: float) -> str:
    """1.5 GiB, 512 MiB: three digits and the unit that fits."""
    unit, step = ("GiB", 1 << 30) if size >= 1 << 30 else ("MiB", 1 << 20)
    return f"{size / step:.3g} {unit}" if size < 100 * step else f"{size / step:,.0f} {unit}"
