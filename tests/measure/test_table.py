"""The table holds everything that was added, in order, and lets go of the texts."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelled import group_of, groups
from plaudit.errors import InputError
from plaudit.group import Completion, Group, Preference, Ranking, Ratings, Tie, pair
from plaudit.measure import TableBuilder, build_table
from plaudit.measure.table import MOST_TEXT

score = st.one_of(st.none(), st.floats(-3, 3), st.just(1.0))


@given(st.data())
def test_columns_are_what_was_added(data: st.DataObject) -> None:
    several = data.draw(st.lists(groups(), max_size=6))
    scores = [data.draw(st.lists(score, min_size=len(g.completions), max_size=len(g.completions))) for g in several]
    table = build_table(several, scores)
    flat = [s for one in scores for s in one]
    np.testing.assert_array_equal(table.score_N, [math.nan if s is None else s for s in flat])
    assert table.num_unscored == flat.count(None) and table.num_completions == len(flat)
    assert table.group_N.tolist() == [n for n, g in enumerate(several) for _ in g.completions]
    assert table.start_G.tolist() == np.cumsum([0, *(len(g.completions) for g in several)])[:-1].tolist()
    assert len(table.id_G) == table.num_groups == len(several)
    asked = [{tuple(sorted((c.better, c.worse))) for c in group.comparisons() if c.weight} for group in several]
    assert np.bincount(table.group_C, minlength=len(several)).tolist() == [len(pairs) for pairs in asked]
    for better, worse, number in zip(table.better_C, table.worse_C, table.group_C, strict=True):
        start = table.start_G[number]
        assert tuple(sorted((better - start, worse - start))) in asked[number]


def test_labels_are_settled_before_they_are_counted() -> None:
    votes = [Preference(better=0, worse=1, by=f"a{n}", margin=m) for n, m in enumerate((1.0, 2.0, None))]
    against = Preference(better=1, worse=0, by="b", margin=9.0)
    table = build_table([group_of(2, *votes, against), group_of(2, votes[0], against), group_of(3, Tie(tie=(0, 2)))], [
        [1.0, 0.0], [1.0, 0.0], [0.0, 0.0, 0.0]
    ])  # fmt: skip
    assert table.is_tie_C.tolist() == [False, True, True]
    assert (table.better_C[0], table.worse_C[0]) == (0, 1)


def test_prompts_are_numbered_by_what_they_ask_and_subsets_by_name() -> None:
    rows = [pair("Why?", "a", "b"), pair(" why? ", "c", "d", subset="math"), pair("How?", "a", "b", subset="math")]
    table = build_table(rows, [[0.0, 0.0]] * 3)
    assert table.prompt_G.tolist() == [0, 0, 1] and table.subsets == ("rest", "math")
    assert table.subset_C.tolist() == [0, 1, 1] and table.prompt_N.tolist() == [0, 0, 0, 0, 1, 1]
    builder = TableBuilder()
    for row, dataset in zip(rows, ("a", "a", "b"), strict=True):
        builder.add(row, [0.0, 0.0], dataset=dataset)
    assert builder.finish().subsets == ("a", "a/math", "b/math")


def test_texts_are_measured() -> None:
    text = "# Title\n- one **bold** thing\n2) two\n\nplain - not a list, # not a title"
    table = build_table([pair("q", text, "")], [[1.0, 2.0]])
    assert table.length_N.tolist() == [len(text), 0]
    assert table.lists_N.tolist() == [2, 0] and table.headings_N.tolist() == [1, 0] and table.bold_N.tolist() == [1, 0]


def test_a_word_with_letters_beyond_ascii_is_one_word() -> None:
    """The second byte of such a letter, 0x80 to 0xbf, is a part of the word."""
    for letter in ("\u00c0", "\u00e0", "\u0100", "\u3000", "\U0001f600"):  # their last bytes: 80, a0, 80, 80, 80
        table = build_table([pair("q", f"a{letter}b", "c")], [[1.0, 0.0]])
        assert table.word_start_N.tolist()[1] == 1, letter


def test_equal_words_have_equal_codes_and_are_there_once() -> None:
    table = build_table([pair("q", "The cat, the hat", "cat\nTHE")], [[1.0, 2.0]])
    first, second = (set(table.word_W[a:b].tolist()) for a, b in pairwise(table.word_start_N))
    assert len(first) == 4 and len(second) == 2 and second < first


def test_ratings_are_averaged_over_those_who_rate() -> None:
    labels = (Ratings(ratings=(4, None, 1)), Ratings(ratings=(2, None, None), weight=3.0), Ranking(order=(1, 0)))
    table = build_table([group_of(3, *labels)], [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(table.rating_N, [2.5, math.nan, 1.0])


def test_tokens_and_scores_have_to_fit_and_a_score_that_is_no_number_is_none() -> None:
    builder = TableBuilder()
    with pytest.raises(InputError, match="1 scores came for 2 completions; one each was needed"):
        builder.add(pair("q", "a", "b"), [1.0])
    with pytest.raises(InputError, match="3 token counts came for 2 completions"):
        builder.add(pair("q", "a", "b"), [1.0, 2.0], tokens=[1, 2, 3])
    builder.add(pair("q", "a", "b"), [math.inf, math.nan], tokens=[5, None])
    table = builder.finish()
    assert table.num_unscored == 2 and table.num_groups == 1
    np.testing.assert_array_equal(table.tokens_N, [5.0, math.nan])


@given(st.lists(st.tuples(st.sampled_from((-1.0, 0.0, 0.5, 2.0)), st.sampled_from((-1.0, 0.0, 0.5, 2.0))), max_size=30))
def test_the_worst_mistakes_are_kept(scores: list[tuple[float, float]]) -> None:
    rows = [pair(f"q{n}", f"better {n}", f"worse {n}", id=str(n)) for n in range(len(scores))]
    kept = build_table(rows, scores, keep_texts=4).mistakes
    wrong = sorted((a - b, n) for n, (a, b) in enumerate(scores) if b > a)
    assert [m.id for m in kept] == [str(n) for _, n in wrong[:4]]
    for m in kept:
        assert (m.score_better, m.score_worse) == scores[int(m.id or "")]
        assert (m.prompt, m.better, m.worse) == (f"q{m.id}", f"better {m.id}", f"worse {m.id}")
        assert m.as_json()["subset"] == ""


def test_a_group_gives_one_mistake_and_its_long_texts_are_cut() -> None:
    turns = ({"role": "user", "content": "why?"}, {"role": "assistant", "content": "x" * 2 * MOST_TEXT})
    group = Group(
        prompt=turns, completions=tuple(Completion(content=c) for c in "abc"), labels=(Ranking(order=(0, 1, 2)),)
    )
    (mistake,) = build_table([group], [[0.0, 1.0, 3.0]]).mistakes
    assert (mistake.better, mistake.worse, mistake.score_worse) == ("a", "c", 3.0)
    assert mistake.prompt.startswith("user: why?\n\nassistant: xxx")
    assert re.search(r"x … \(4,023 more characters\)$", mistake.prompt) and len(mistake.prompt) < MOST_TEXT + 40


def test_nothing_is_a_table_too() -> None:
    table = build_table([], [])
    assert Counter([table.num_groups, table.num_completions, len(table.better_C)]) == {0: 3}


def test_words_that_were_seen_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair(f"q{n}", f"word{n} and", f"word{n % 7} but") for n in range(60)]
    whole = build_table(rows, [[0.0, 0.0]] * 60)
    monkeypatch.setattr("plaudit.measure.table._MOST_REMEMBERED", 10)
    builder = TableBuilder()
    for row in rows:
        builder.add(row, [0.0, 0.0])
        assert len(builder._codes) < 16
    np.testing.assert_array_equal(builder.finish().word_W, whole.word_W)


def test_long_texts_of_a_mistake_are_cut_and_say_so() -> None:
    texts = ["x" * (MOST_TEXT + 7) for _ in range(3)]
    (mistake,) = build_table([pair(*texts)], [[0.0, 1.0]]).mistakes
    for text in (mistake.prompt, mistake.better, mistake.worse):
        assert text == "x" * MOST_TEXT + " … (7 more characters)"
