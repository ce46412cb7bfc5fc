"""The documents as data: fenced blocks with the comments above them, the commands in a block, links and headings.

A block is run unless the comment `<!-- not run: REASON -->` stands above it. `<!-- exits with 2 -->` says that its last
command fails, `<!-- slow -->` that it needs processes of its own, `<!-- of one machine -->` that another machine would
print other words. A block `text printed` under a Python block is what that prints. `...` stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LOG.md")]
RUNNABLE = ("console", "sh", "python")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced block: its language and what else the fence says, its text, and the comments above it."""

    page: Path
    line: int
    language: str
    about: str
    text: str
    marks: tuple[str, ...]
    heading: str

    @property
    def place(self) -> str:
        """Where to look when it fails."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it holds commands, and no comment says that they are not run."""
        return self.language in RUNNABLE and not self.reason

    @property
    def reason(self) -> str:
        """Why it is not run."""
        return next((mark.removeprefix("not run:").strip() for mark in self.marks if mark.startswith("not run:")), "")

    @property
    def exit_code(self) -> int:
        """How its last command ends."""
        return next((int(mark.split()[-1]) for mark in self.marks if mark.startswith("exits with ")), 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One thing to run: a shell command or Python code; what it prints (None where the page does not say)."""

    block: Block
    code: str
    printed: str | None
    exit_code: int


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    blocks: list[Block] = []
    marks: list[str] = []
    heading = ""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if line.startswith("```"):
            language, _, about = line.removeprefix("```").strip().partition(" ")
            text = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                text.append(inner)
            blocks.append(
                Block(
                    page=page,
                    line=number,
                    language=language,
                    about=about,
                    text="\n".join(text) + "\n",
                    marks=tuple(marks),
                    heading=heading,
                )
            )
            marks = []
        elif comment := re.fullmatch(r"<!-- (.*) -->", line):
            marks.append(comment[1])
        elif line.strip():
            marks = []
            heading = line.lstrip("# ") if line.startswith("#") else heading
    return blocks


def read_steps(page: Path) -> list[Step]:
    """Everything on a page that is run, in order."""
    blocks = read_blocks(page)
    steps: list[Step] = []
    for block, below in pairwise([*blocks, None]):
        if not block.is_run:
            continue
        if block.language == "python":
            printed = below.text if below is not None and below.about == "printed" else None
            found: list[tuple[str, str | None]] = [(block.text, printed)]
        else:
            found = list(cut_console(block.text) if block.language == "console" else cut_script(block.text))
        for place, (code, printed) in enumerate(found, start=1):
            exit_code = block.exit_code if place == len(found) else 0
            steps.append(Step(block=block, code=code, printed=printed, exit_code=exit_code))
    return steps


def cut_console(text: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of a block in which `$ ` begins a command."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def cut_script(text: str) -> Iterator[tuple[str, None]]:
    """The commands of a block, one a line; a here-document belongs to its command."""
    lines = iter(text.splitlines())
    for line in lines:
        if end := re.search(r"<<'(\w+)'", line):
            document = [line]
            for inner in lines:
                document.append(inner)
                if inner == end[1]:
                    break
            yield "\n".join(document) + "\n", None
        elif line.strip():
            yield line, None


def match_output(expected: str, printed: str) -> bool:
    """Whether a program printed what a page says: numbers count as numbers, blanks as blanks, `...` as anything."""
    parts = [_shape(part) for part in expected.split("...")]
    return re.fullmatch(".*".join(re.escape(part) for part in parts), _shape(printed), re.DOTALL) is not None


def _shape(text: str) -> str:
    number = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
    return re.sub(r"\s+", "", re.sub(number, "#", text))


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def read_links(page: Path) -> list[str]:
    """The targets of a page's links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)
