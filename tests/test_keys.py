"""When things are the same, and lots that depend on nothing but the thing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.group import Completion, Content, Group, Label, Preference, Ranking, Ratings, Tie, pair
from plaudit.keys import content_key, draw_lot, group_key, normalise_text, opening_key, prompt_key, show_prompt


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def asked(prompt: Content) -> Group:
    return pair(prompt, "yes", "no")


def key_of(group: Group) -> bytes:
    return group_key(group, [content_key(c.content) for c in group.completions])


@pytest.mark.parametrize(
    "other",
    [
        "what  is\n LOVE? ",
        "\u00a0What is love?",
        (user("What is love?"),),
        ({"role": "user", "content": "what is love?"},),
        "\uff37hat is love?",  # a full-width W
    ],
)
def test_a_prompt_is_the_same_in_other_dress(other: Content) -> None:
    assert prompt_key(asked("What is love?")) == prompt_key(asked(other))


@pytest.mark.parametrize(
    "other",
    [
        "What is love",
        "What is glove?",
        (assistant("What is love?"),),
        ({"role": "system", "content": "Be brief."}, user("What is love?")),
        (user("What is love?"), assistant("Baby"), user("don't hurt me")),
        ({"role": "user", "content": "What is love?", "name": "Haddaway"},),
    ],
)
def test_another_prompt_is_another(other: Content) -> None:
    assert prompt_key(asked("What is love?")) != prompt_key(asked(other))


def test_turns_do_not_run_into_each_other() -> None:
    assert prompt_key(asked((user("ab"), assistant("c")))) != prompt_key(asked((user("a"), assistant("bc"))))
    assert prompt_key(asked((user("a"), user("b")))) != prompt_key(asked((user("a b"),)))


def test_later_turns_have_the_opening_of_their_conversation() -> None:
    first = (user("Hello?"),)
    later = (*first, assistant("Hi!"), user("How are you?"))
    assert prompt_key(asked(first)) != prompt_key(asked(later))
    assert opening_key(asked(first)) == opening_key(asked(later)) == prompt_key(asked(first))
    told = ({"role": "system", "content": "Be a pirate."}, *later)
    assert opening_key(asked(told)) == opening_key(asked(told[:2])) != opening_key(asked(later))
    assert opening_key(asked("Hello?")) == opening_key(asked(first))
    assert opening_key(asked((assistant("Welcome."),))) == prompt_key(asked((assistant("Welcome."),)))


def test_without_a_prompt_the_shared_beginning_stands_for_it() -> None:
    def told(question: str, *answers: str) -> Group:
        return pair("", *(f"Question: {question}\nAnswer: {answer}" for answer in answers))

    same = [prompt_key(told("why?", *answers)) for answers in (("so", "sad"), ("because", "never"))]
    assert same[0] == same[1] != prompt_key(told("how?", "so", "sad"))
    # The beginning is cut at its last line where it has several, so words that only these answers share are left out.
    lines = [prompt_key(pair("", f"Why?\nIt is {a}", f"Why?\nIt is {b}")) for a, b in (("so", "sad"), ("blue", "not"))]
    others = [prompt_key(pair("", f"Why?\nWe are {a}", f"Why?\nWe are {b}")) for a, b in (("so", "sad"),)]
    assert lines[0] == lines[1] == others[0] == prompt_key(pair("", "why? so", "why? sad"))
    # Without a line break it is cut at its last word, without a space there is no beginning that counts.
    assert prompt_key(pair("", "why? so", "why? sad")) == prompt_key(pair("", "Why? no", "Why? never"))
    assert prompt_key(pair("", "whyso", "whysad")) != prompt_key(pair("", "whyno", "whynever"))
    # A beginning of white space is none.
    assert prompt_key(pair("", "\n\nso", "\n\nsad")) != prompt_key(pair("", "\n\nno", "\n\nnever"))
    # No beginning is shared: the answers themselves tell one Group from another.
    assert prompt_key(pair("", "one", "two")) == prompt_key(pair("", "two", "one")) != prompt_key(pair("", "one", "x"))
    assert prompt_key(pair("", "one", "one")) != prompt_key(pair("", "two", "two"))


def test_a_group_is_the_same_whatever_is_listed_first() -> None:
    texts = ("best", "middle", "worst")
    completions = tuple(Completion(content=text) for text in texts)
    turned = completions[::-1]
    kinds: list[tuple[Label, Label]] = [
        (Preference(better=0, worse=2, margin=1.5, by="a"), Preference(better=2, worse=0, margin=1.5, by="a")),
        (Ranking(order=(0, 1, 2)), Ranking(order=(2, 1, 0))),
        (Tie(tie=(0, 1)), Tie(tie=(1, 2))),
        (Ratings(ratings=(3, None, 1.0)), Ratings(ratings=(1.0, None, 3))),
    ]
    keys = []
    for label, mirrored in kinds:
        one = Group(prompt="p", completions=completions, labels=(label,), id="x")
        same = Group(prompt="p", completions=turned, labels=(mirrored,), id="y", source="elsewhere")
        assert key_of(one) == key_of(same)
        assert key_of(one) != key_of(Group(prompt="p", completions=turned, labels=(label,)))
        keys.append(key_of(one))
    assert len(set(keys)) == len(kinds)


@pytest.mark.parametrize("change", [{"margin": 2.0}, {"by": "b"}, {"weight": 0.5}])
def test_another_belief_is_another_group(change: dict[str, Any]) -> None:
    completions = (Completion(content="a"), Completion(content="b"))
    one = Group(prompt="p", completions=completions, labels=(Preference(better=0, worse=1),))
    other = Group(prompt="p", completions=completions, labels=(Preference(better=0, worse=1, **change),))
    assert key_of(one) != key_of(other)


def test_an_answer_is_the_same_as_text_and_as_the_assistants_turn() -> None:
    assert content_key("yes") == content_key((assistant("yes"),))
    assert content_key("yes") != content_key((user("yes"),))
    assert content_key("yes") != content_key("yes ")
    assert content_key((assistant("a"), assistant("b"))) != content_key((assistant("ab"),))


def test_parts_and_half_characters_are_told_apart() -> None:
    parts = [({"role": "user", "content": [{"type": "text", "text": text}]},) for text in ("why?", "how?")]
    assert prompt_key(asked(parts[0])) == prompt_key(asked("why?")) != prompt_key(asked(parts[1]))
    assert prompt_key(asked("\ud800")) != prompt_key(asked("\ud801"))


def test_a_prompt_is_shown_on_one_short_line() -> None:
    assert show_prompt(asked("a\n b")) == "a b"
    assert show_prompt(asked((user("first"), assistant("x"), user("last")))) == "last"
    assert show_prompt(asked("w" * 100)) == "w" * 59 + "…"


def test_lots_are_fair_and_of_their_purpose() -> None:
    lots = [draw_lot(7, "split", n.to_bytes(4, "big")) / 2**64 for n in range(4000)]
    assert abs(sum(lots) / 4000 - 0.5) < 0.02
    assert max(Counter(int(lot * 10) for lot in lots).values()) < 480
    assert draw_lot(7, "split", b"x") == draw_lot(7, "split", b"x")
    assert len({draw_lot(7, "split", b"x"), draw_lot(8, "split", b"x"), draw_lot(7, "share", b"x")}) == 3
    # A promise to those who go on with a run: the numbers themselves stay.
    assert draw_lot(0, "split", b"x") == 18087131251146924474


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(f"  {text}\n") == once
    assert once == " ".join(once.split())
