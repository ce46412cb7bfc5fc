"""Text that is printed on a terminal, made safe: names and texts of data cannot move the cursor or hide what follows.

Stands on `redaction`. Everything that the command line and the library print goes through here: sentences by
`print_line`, whatever rich draws by `SafeConsole`. A control character, a bidirectional override, half of a surrogate
pair is shown as its escape (`\\x1b`), so that a reader sees that it is there. Invariant: what comes out holds no
character that a terminal acts on, except line breaks where they are the layout's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from plaudit.redaction import hide_text

MOST = 4_000
"""Characters of one value on a screen; the report and the files hold all of it."""

# C0, DEL and C1; marks, embeddings, overrides and isolates of direction; line and paragraph separators; halves of
# surrogate pairs, which no stream can encode; and tags, which are letters that nobody sees.
_RANGES = (
    (0x00, 0x20), (0x7F, 0xA0), (0x61C, 0x61D), (0x200B, 0x2010), (0x2028, 0x202F), (0x2060, 0x2070), (0xD800, 0xE000),
    (0xFEFF, 0xFF00), (0xFFF9, 0xFFFC), (0xE0000, 0xE0080),
)  # fmt: skip
# A joiner is part of emoji and of several scripts' words, and moves nothing.
_KEPT = {0x200C, 0x200D}
_ESCAPES = {c: ascii(chr(c))[1:-1] for low, high in _RANGES for c in range(low, high) if c not in _KEPT}
_PAGE = {c: escape for c, escape in _ESCAPES.items() if chr(c) != "\n"} | {ord("\t"): "    "}


def clean_line(text: str, most: int = MOST) -> str:
    """A name or a text as one line: what a terminal would act on, line breaks too, as escapes; cut to `most`.

    Examples:
        >>> clean_line("a\\x1b[31mb\\nc")
        'a\\\\x1b[31mb\\\\nc'
    """
    text = text if len(text) <= most else f"{text[: max(0, most - 1)]}…"
    # Most text has nothing of the kind in it, and this test is far faster than a translation.
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPES)


def clean_page(text: str) -> str:
    """Text of several lines: its line breaks stay."""
    return text.translate(_PAGE)


def print_line(sentence: str, *, stream: TextIO | None = None) -> None:
    """One sentence on stderr, or on another stream: safe, and without secrets."""
    print(clean_line(hide_text(sentence)), file=stream or sys.stderr, flush=True)


def print_page(text: str, *, stream: TextIO | None = None) -> None:
    """Text of several lines on stdout, or on another stream: safe, and without secrets."""
    print(clean_page(hide_text(text)), file=stream or sys.stdout, flush=True)


def make_console(stream: TextIO, **options: Any) -> Any:
    """A rich console that draws no markup of data, and lets no control character of theirs through."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            """What rich draws, cleaned: only rich itself may send control codes."""
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(clean_page(segment.text), segment.style)

    return SafeConsole(file=stream, markup=False, emoji=False, highlight=False, **options)
