"""The noun: what a Group refuses, and how four kinds of label become one."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import DataError
from plaudit.group import Comparison, Completion, Group, Label, Preference, Ranking, Ratings, Tie, pair


def group(num: int, *labels: Label) -> Group:
    return Group(prompt="p", completions=tuple(Completion(content=f"c{i}") for i in range(num)), labels=labels)


def flat(label: Label) -> list[tuple[int, int, bool]]:
    return [(c.better, c.worse, c.is_tie) for c in label.comparisons()]


def test_a_preference_is_one_comparison_with_all_it_knows() -> None:
    label = Preference(better=1, worse=0, margin=0.5, by="ann", weight=2.0)
    assert list(label.comparisons()) == [Comparison(better=1, worse=0, margin=0.5, weight=2.0, by="ann")]


def test_a_tie_of_three_ties_every_two() -> None:
    assert flat(Tie(tie=(0, 2, 1))) == [(0, 2, True), (0, 1, True), (2, 1, True)]


def test_a_ranking_is_every_two_in_order_best_first() -> None:
    assert flat(Ranking(order=(2, 0, 1))) == [(2, 0, False), (2, 1, False), (0, 1, False)]


def test_ratings_leave_out_what_was_not_rated() -> None:
    label = Ratings(ratings=(4.0, 2.0, None, 4.0))
    assert flat(label) == [(0, 1, False), (0, 3, True), (3, 1, False)]
    assert [c.margin for c in label.comparisons()] == [2.0, None, 2.0]


def test_a_rating_of_zero_is_a_rating() -> None:
    assert flat(Ratings(ratings=(0.0, None, -1.0))) == [(0, 2, False)]


@given(st.permutations(range(6)))
def test_ranking_and_ratings_of_the_same_order_agree(order: list[int]) -> None:
    ratings = [0.0] * 6
    for place, index in enumerate(order):
        ratings[index] = float(-place)
    ranked = {(c.better, c.worse) for c in Ranking(order=tuple(order)).comparisons()}
    rated = {(c.better, c.worse) for c in Ratings(ratings=tuple(ratings)).comparisons()}
    assert ranked == rated
    assert len(ranked) == 15


def test_a_group_chains_its_labels() -> None:
    both = group(3, Preference(better=0, worse=1, by="a"), Tie(tie=(1, 2), by="b"))
    assert [(c.better, c.worse, c.is_tie, c.by) for c in both.comparisons()] == [(0, 1, False, "a"), (1, 2, True, "b")]


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (Preference(better=0, worse=3), "names completion 3, but there are 3"),
        (Preference(better=-1, worse=0), "names completion -1"),
        (Preference(better=1, worse=1), "names a completion twice"),
        (Preference(better=0, worse=1, margin=math.nan), "margin nan came"),
        (Preference(better=0, worse=1, weight=-1.0), "weight -1.0 came"),
        (Preference(better=0, worse=1, weight=math.inf), "weight inf came"),
        (Tie(tie=(1,)), "needs at least two completions, 1 came"),
        (Ranking(order=(0, 1, 0)), "names a completion twice"),
        (Ratings(ratings=(1.0, 2.0)), "2 ratings came for 3 completions"),
        (Ratings(ratings=(1.0, math.inf, None)), "rating inf came"),
    ],
)
def test_a_label_that_does_not_fit_is_refused_in_a_sentence(label: Label, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        group(3, label)
    assert caught.value.field == "labels"


def test_a_group_needs_a_completion() -> None:
    with pytest.raises(DataError, match="at least one was needed"):
        group(0)


def test_records_are_frozen_and_keyword_only() -> None:
    one = pair("p", "good", "bad", margin=1.5, id="q1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.prompt = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Completion("text")  # type: ignore[misc]
    assert (one.id, [c.text for c in one.completions]) == ("q1", ["good", "bad"])
    assert list(one.comparisons()) == [Comparison(better=0, worse=1, margin=1.5)]


def test_a_conversation_is_prompt_then_answer() -> None:
    turns = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})
    answer = ({"role": "assistant", "content": "a"}, {"role": "user", "content": "more?"})
    both = Group(prompt=turns, completions=(Completion(content="plain"), Completion(content=answer)))
    assert both.conversation(0) == (*turns, {"role": "assistant", "content": "plain"})
    assert both.conversation(1) == (*turns, *answer)
    assert not both.is_plain
    assert both.completions[1].text == "a\nmore?"


@pytest.mark.parametrize("prompt", ["", ()])
def test_an_empty_prompt_makes_no_turn(prompt: str | tuple[()]) -> None:
    one = Group(prompt=prompt, completions=(Completion(content="x"),))
    assert one.conversation(0) == ({"role": "assistant", "content": "x"},)


def test_a_turn_without_text_reads_as_empty() -> None:
    call = ({"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}, {"role": "tool", "content": "4"})
    assert Completion(content=call).text == "\n4"


PARTS = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]


def test_text_parts_become_the_text_of_their_turn() -> None:
    parts = ({"role": "assistant", "content": PARTS, "name": "x"},)
    assert Completion(content=parts).content == ({"role": "assistant", "content": "Hello there", "name": "x"},)
    assert Completion(content=parts).text == "Hello there"
    built = Group(
        prompt=({"role": "user", "content": ("Hi", {"text": "!"})},), completions=(Completion(content=parts),)
    )
    assert built.conversation(0) == (
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello there", "name": "x"},
    )
    assert parts[0]["content"] is PARTS  # the caller's own rows stay as they are


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}], "'image_url'"),
        ([{"type": "image"}], "'image'"),
        ([{"type": "text", "text": 5}], "'text'"),
        ([{"type": "text"}], "'text'"),
        ([None], "'NoneType'"),
        ([["a"]], "'list'"),
        ({"text": "a"}, "dict"),
        (5, "int"),
        (True, "bool"),
    ],
)
def test_content_that_is_no_text_is_refused(content: object, named: str) -> None:
    for build in (
        lambda: Completion(content=({"role": "assistant", "content": content},)),
        lambda: Group(prompt=({"role": "user", "content": content},), completions=(Completion(content="a"),)),
    ):
        with pytest.raises(DataError, match="expected text") as caught:
            build()
        assert named in str(caught.value)


def test_a_turn_without_content_has_no_text() -> None:
    calls = ({"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]},)
    assert Completion(content=calls).text == "" and Completion(content=calls).content is calls
