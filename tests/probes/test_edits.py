"""edits: each one does what it says, on ordinary and on odd text, the same at every time, and keeps code as it is."""

from __future__ import annotations

import doctest
import pkgutil
import random
import re
from collections import Counter
from importlib import import_module
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plaudit.probes
from plaudit.probes import PROBES, Case, Expects, Probe
from plaudit.probes.prose import edit_prose, has_markup, split_sentences

EDITS = [probe for probe in PROBES.values() if probe.edit is not None]
by_edit = pytest.mark.parametrize("probe", EDITS, ids=lambda probe: probe.name)

PROSE = (
    "The tower was built in 1889, and it isn't small. It is 330 metres tall! Is it open? "
    'Yes, visitors can climb it; "early" is best. You should not carry heavy luggage upstairs.'
)
CODE = "Use this:\n\n```python\nprint('It is 4')\n```\n\nThen it is done, as `f(x)` says at https://Example.org/A."
MARKDOWN = "## Plan\n\n- **First**, it is *this*\n- Then [that](http://x.y)\n\n1. One is 1.\n2. Two are 20."
ODD = {
    "word": "Lima",
    "letter": "a",
    "mark": "?!",
    "number": "42",
    "emoji": "👍🏽 ok 😀",
    "chinese": "这是一个答案。它有两句话。不是吗？",
    "arabic": "هذه إجابة. وهي ليست طويلة.",
    "composed": "Cafe\u0301 is nai\u0308ve. It isn\u2019t.",
    "surrogate": "half \ud83d a pair is 1. It is odd. Is it?",
    "windows": "One is here.\r\nTwo is there.\r\n\r\nThree is 3.",
    "code": CODE,
    "only code": "```\nx = 1\n```",
    "open fence": "```python\nx = 1",
    "markdown": MARKDOWN,
    "table": "| a | b |\n|---|---|\n| 1 | 2 |",
    "formula": "So $x^2$ is 4. Then $$y = 2$$ is 2. And so on. It is.",
    "one line": "word " * 3000,
    "prose": PROSE,
}


def edit(name: str, answer: str, seed: int = 0, **rest: str) -> str | None:
    case = Case(prompt=rest.get("prompt", "How tall is it?"), answer=answer, other=rest.get("other", "Boil it."))
    found = PROBES[name].edit
    assert found is not None
    return found(case, random.Random(seed))


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages(plaudit.probes.__path__, "plaudit.probes.")])
def test_examples_run(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.failed == 0
    is_edit = name.startswith("plaudit.probes.edits.") and not PROBES[name.rsplit(".", 1)[1]].staged
    assert found.attempted > 0 or not is_edit


@by_edit
@pytest.mark.parametrize("kind", ODD)
def test_odd_text_is_edited_or_left_alone(probe: Probe, kind: str) -> None:
    answer = ODD[kind]
    for seed in range(3):
        after = edit(probe.name, answer, seed)
        assert after == edit(probe.name, answer, seed), "the same lots, the same edit"
        if after is not None:
            assert after != answer
            assert after.strip()


@by_edit
@given(answer=st.text(max_size=300).filter(str.strip), seed=st.integers(0, 9))
def test_any_text_is_edited_or_left_alone(probe: Probe, answer: str, seed: int) -> None:
    after = edit(probe.name, answer, seed)
    assert after is None or (after != answer and after.strip())


@by_edit
def test_ordinary_prose_is_edited_by_all_but_the_one_that_takes_marks_out(probe: Probe) -> None:
    assert (edit(probe.name, PROSE) is None) == (probe.name == "plain_text")


@by_edit
def test_what_keeps_the_meaning_keeps_code(probe: Probe) -> None:
    after = edit(probe.name, CODE)
    if probe.expects is Expects.SAME and after is not None:
        for kept in ("print('It is 4')", "f(x)", "https://Example.org/A"):
            assert kept in after


@pytest.mark.parametrize("name", ["padding", "restating", "repetition", "closing", "retraction"])
def test_these_come_after_the_answer(name: str) -> None:
    after = edit(name, PROSE)
    assert after is not None and after.startswith(PROSE)


@pytest.mark.parametrize("name", ["opening", "praise", "confidence"])
def test_these_come_before_the_answer(name: str) -> None:
    after = edit(name, PROSE)
    assert after is not None and after.endswith(f"\n\n{PROSE}")


@pytest.mark.parametrize("name", ["padding", "restating"])
def test_additions_grow_with_the_answer(name: str) -> None:
    short, long = (edit(name, " ".join([PROSE] * times)) or "" for times in (1, 3))
    assert 1.2 < len(short) / len(PROSE) < 2
    assert 1.2 < len(long) / (3 * len(PROSE)) < 2


def test_the_words_of_lists_headings_and_bold_are_those_of_the_answer() -> None:
    for name, mark in (
        ("bullets", r"^- "),
        ("numbered", r"^\d\. "),
        ("bold", r"\*\*"),
        ("headings", r"^## Answer\n\n"),
    ):
        after = edit(name, PROSE) or ""
        assert re.sub(mark, "", after, flags=re.MULTILINE).split() == PROSE.split(), name
        assert len(re.findall(mark, after, flags=re.MULTILINE)) == {"bold": 10, "headings": 1}.get(name, 5), name


def test_marks_are_taken_out_and_words_are_not() -> None:
    assert edit("plain_text", MARKDOWN) == "Plan\n\nFirst, it is this\nThen that\n\nOne is 1.\nTwo are 20."
    assert edit("plain_text", "2 * 3 * 4 is 24, and snake_case_name stays") is None


def test_case_and_space_alone_change() -> None:
    upper, lower, wide = (edit(name, PROSE) or "" for name in ("upper_case", "lower_case", "white_space"))
    assert upper.lower() == lower == PROSE.lower()
    assert wide.split() == PROSE.split()
    assert wide.count("  ") == PROSE.count(" ") // 5


def test_typos_are_few_and_keep_every_letter() -> None:
    long = " ".join([PROSE] * 4)
    after = edit("typos", long) or ""
    slips = [(a, b) for a, b in zip(long.split(), after.split(), strict=True) if a != b]
    assert 1 <= len(slips) <= len(long.split()) / 12
    for a, b in slips:
        assert sorted(a) == sorted(b) and a[0] == b[0]
    assert edit("typos", "The Eiffel") is None, "names and short words stay"


def test_quotes_turn_there_and_back() -> None:
    text = 'He said: "It\'s \'fine\'." ("Really?")'
    curly = edit("quotes", text) or ""
    assert curly == "He said: “It’s ‘fine’.” (“Really?”)"
    assert edit("quotes", curly) == text


def test_contractions_turn_there_and_back() -> None:
    assert edit("contractions", "I can't, and they won't.") == "I cannot, and they will not."
    assert edit("contractions", "I cannot, and they will not.") == "I can't, and they won't."
    assert edit("contractions", "It's his.") is None


def test_truncation_is_the_first_half() -> None:
    after = edit("truncation", PROSE) or ""
    assert PROSE.startswith(after) and after[-1].isalnum()
    assert len(after.split()) == len(PROSE.split()) // 2
    assert edit("truncation", "Too short to cut.") is None


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("It is 330 m.", "330"),
        ("1. One\n2. It has 7", "7"),
        ("About 1,250.50 or so", "1,250.50"),
        ("In 1889, yes", "1889"),
    ],
)
def test_the_number_is_wrong_and_as_long(answer: str, number: str) -> None:
    for seed in range(20):
        after = edit("wrong_number", answer, seed) or ""
        found = [(a, b) for a, b in zip(answer, after, strict=True) if a != b]
        assert len(found) == 1 and all(a.isdigit() and b.isdigit() for a, b in found)
        assert number not in after
        assert not re.search(r"(?<![\d.,])0\d", after)
    assert edit("wrong_number", "1. One\n2. Two") is None
    assert edit("wrong_number", "A4 and v2") is None


def test_shuffled_sentences_are_the_same_ones() -> None:
    for seed in range(20):
        after = edit("shuffled", PROSE, seed) or ""
        assert Counter(s.words for s in split_sentences(after)) == Counter(s.words for s in split_sentences(PROSE))
    assert edit("shuffled", "One. Two.") is None
    assert edit("shuffled", "No. No. No.") is None


def test_statements_are_turned_and_questions_are_not() -> None:
    assert edit("negation", PROSE) == (
        "The tower was not built in 1889, and it isn't small. It is not 330 metres tall! Is it open? "
        'Yes, visitors cannot climb it; "early" is best. You should carry heavy luggage upstairs.'
    )
    assert edit("negation", "It won't be. It isn't so. Hello there.") == "It will be. It is so. Hello there."
    assert edit("negation", "Hello there.") is None


def test_a_loop_is_a_loop() -> None:
    words = [sentence.words for sentence in split_sentences(edit("repetition", PROSE) or "")]
    assert sum(a == b for a, b in pairwise(words)) == 5


def test_other_answers_and_the_prompt_take_its_place() -> None:
    assert edit("off_topic", PROSE, other="Boil it.") == "Boil it."
    assert edit("off_topic", PROSE, other="") is None
    assert edit("off_topic", PROSE, other=PROSE) is None
    assert edit("echo", PROSE, prompt="What?") == "What?"
    assert edit("echo", PROSE, prompt="") is None


@given(st.text(max_size=200))
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(s.words + s.gap for s in split_sentences(text)) == text
    assert edit_prose(text, lambda prose: prose) == text


def test_structure_is_seen() -> None:
    assert [has_markup(t) for t in ("- a", "* a", "3) a", "# A", "```", "| a |", "a - b", "3.5 is", "#a")] == [
        True
    ] * 6 + [False] * 3


def test_staged_answers_differ_in_what_they_say_and_hardly_in_length() -> None:
    for name in ("agreement", "false_confidence"):
        staged = PROBES[name].staged
        assert len(staged) == len({s.prompt for s in staged}) == 40
        gaps = [len(s.after) - len(s.before) for s in staged]
        assert max(map(abs, gaps)) <= 8 and abs(sum(gaps)) / len(gaps) < 1
