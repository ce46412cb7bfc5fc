"""The reader of pages is itself to be trusted: what it finds, what it lets pass, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import pages
from pages import match_output, read_blocks, read_links, read_steps, slugs

PAGE = """# A page: with *signs*

[there](#a-page-with-signs) and [elsewhere](other.md#top)

<!-- not run: it would take a network -->
```sh
curl example.com
```

<!-- exits with 2 -->
<!-- slow -->

```console
$ first
one
$ second | third
two 3.5
```

A sentence between.

```sh
cat > a.jsonl <<'EOF'
{"a": 1}

EOF
plaudit score m a.jsonl
```

```python
print(1)
```
```text printed
1
```

```json becomes
[not a link](nowhere.md)
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return file


def test_blocks_carry_their_comments_and_their_place(page: Path) -> None:
    curl, console, script, python, printed, becomes = read_blocks(page)
    assert (curl.is_run, curl.reason, curl.place) == (False, "it would take a network", "page.md:6")
    assert (console.marks, console.exit_code, console.is_run) == (("exits with 2", "slow"), 2, True)
    assert (script.marks, python.language, printed.about) == ((), "python", "printed")
    assert (becomes.language, becomes.about, becomes.is_run) == ("json", "becomes", False)
    assert {block.heading for block in read_blocks(page)} == {"A page: with *signs*"}


def test_steps_are_commands_with_what_they_print_and_how_they_end(page: Path) -> None:
    assert [(step.code, step.printed, step.exit_code) for step in read_steps(page)] == [
        ("first", "one\n", 0),
        ("second | third", "two 3.5\n", 2),
        ("cat > a.jsonl <<'EOF'\n{\"a\": 1}\n\nEOF\n", None, 0),
        ("plaudit score m a.jsonl", None, 0),
        ("print(1)\n", "1\n", 0),
    ]


def test_links_and_anchors_are_those_outside_of_blocks(page: Path) -> None:
    assert read_links(page) == ["#a-page-with-signs", "other.md#top"]
    assert slugs(page) == {"a-page-with-signs"}


@pytest.mark.parametrize(
    ("expected", "printed", "is_same"),
    [
        ("took 3.4 s\n", "took  12 s\n", True),
        ("within 2e-05 of [-0.5, +1,234.5]", "within 1e-4 of [0.5, 7]", True),
        ("one ... four", "one two three four", True),
        ("one\n...\n", "one\ntwo\nthree\n", True),
        ("...\nlast", "first\nlast", True),
        ("one", "one two", False),
        ("one ... four", "one two", False),
        ("3 rows", "3 groups", False),
        ("a.c", "abc", False),
        ("", "anything", False),
    ],
)
def test_numbers_count_as_numbers_and_words_as_words(expected: str, printed: str, is_same: bool) -> None:
    assert match_output(expected, printed) is is_same
