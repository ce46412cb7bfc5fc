"""What can be read off the surface is found, what cannot is not, and no guess is on a prompt that was seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from plaudit.formats import read_groups
from plaudit.group import Completion, Group, Preference, Ranking, Tie, pair
from plaudit.surface import ALARMING, measure_surface, settle

Texts = tuple[str, str]


def answers(n: int, seed: int = 0) -> list[Texts]:
    """Pairs that differ in nothing systematic."""
    rng = random.Random(seed)
    words = ["tree", "pack", "leaf", "score", "group", "label", "round", "judge"]

    def answer() -> str:
        ends = rng.choice([".", "!", "?", ""])
        return " ".join(rng.choice(words) for _ in range(rng.randrange(3, 40))) + ends

    return [(answer(), answer()) for _ in range(n)]


def longer(a: str, b: str) -> Texts:
    return (a, b) if (len(a), a) > (len(b), b) else (b, a)


LEAKS: dict[str, Callable[[str, str], Texts]] = {
    "longer": longer,
    "shorter": lambda a, b: longer(a, b)[::-1],
    "a list": lambda a, b: (f"{a}\n- {a.split()[0]}\n- {b.split()[0]}", b),
    "a first word": lambda a, b: (f"Sure! {a}", b),
    "a first word in the worse": lambda a, b: (a, f"Sorry, {b}"),
    "white space in front": lambda a, b: (f" {a}", b),
    "white space at the end": lambda a, b: (a, f"{b} "),
    "a token left over": lambda a, b: (a, f"{b}<|im_end|>"),
    "code": lambda a, b: (f"{a}\n```py\n{b.split()[0]}\n```\n{a.split()[0]}", b),
    "one of two signs": lambda a, b: (f"Sure! {a}", b) if len(a) % 2 else (a, f"{b} [END]"),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("number", [130, 600])
def test_a_planted_leak_is_found(leak: str, number: int) -> None:
    groups = [pair(f"q{n}", *LEAKS[leak](a, b)) for n, (a, b) in enumerate(answers(number))]
    report = measure_surface(groups)
    assert report is not None and report.accuracy > ALARMING and report.is_alarming, report
    assert report.num_comparisons == report.num_prompts == number


def test_the_rule_is_named() -> None:
    def rule(leak: str) -> str:
        report = measure_surface([pair(f"q{n}", *LEAKS[leak](a, b)) for n, (a, b) in enumerate(answers(300))])
        assert report is not None and report.rule in report.sentence()
        return report.rule

    assert rule("longer") == "the one with more characters is better (100.0%)"
    assert rule("shorter") == "the one with fewer characters is better (100.0%)"
    assert rule("a first word") == "the one that begins with the word 'Sure!' is better (100.0%)"
    assert rule("a first word in the worse") == "the one that begins with the word 'Sorry,' is worse (100.0%)"
    assert rule("white space in front") == "the one with more white space in front is better (100.0%)"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_not_there_is_not_found(seed: int) -> None:
    report = measure_surface([pair(f"q{n}", a, b) for n, (a, b) in enumerate(answers(800, seed))])
    assert report is not None
    assert abs(report.accuracy - 0.5) < 0.08
    assert 0.01 < report.half_width < 1.1 * 1.96 * (0.25 / 800) ** 0.5


def test_a_word_that_only_its_prompt_explains_is_no_help() -> None:
    """Each prompt has its own sign of the better answer: seen prompts would give all of it away."""
    groups = [pair(f"q{n % 40}", f"sign{n % 40} {a}", b) for n, (a, b) in enumerate(answers(800, seed=4))]
    mirrored = [
        pair(f"q{n % 40}", *((f"sign{n % 40} {a}", b) if n % 40 < 20 else (b, f"sign{n % 40} {a}")))
        for n, (a, b) in enumerate(answers(800, seed=4))
    ]
    leaking, not_leaking = measure_surface(groups), measure_surface(mirrored)
    assert leaking is not None and leaking.accuracy > 0.9  # a word more, in every prompt
    assert not_leaking is not None and not_leaking.accuracy < 0.6


def test_few_data_are_not_judged() -> None:
    groups = [pair(f"q{n}", *LEAKS["longer"](a, b)) for n, (a, b) in enumerate(answers(99))]
    assert measure_surface(groups) is None
    nine = [pair(f"q{n % 9}", *LEAKS["longer"](a, b)) for n, (a, b) in enumerate(answers(500))]
    assert measure_surface(nine) is None
    ties = [
        Group(prompt=f"q{n}", completions=(Completion(content=a), Completion(content=b)), labels=(Tie(tie=(0, 1)),))
        for n, (a, b) in enumerate(answers(200))
    ]
    assert measure_surface(ties) is None
    assert measure_surface([]) is None


def test_many_data_take_a_part_and_many_completions_too() -> None:
    texts = answers(1500)
    wide = [
        Group(
            prompt=f"q{n}",
            completions=tuple(Completion(content=t) for t in sorted({t for p in texts[n : n + 6] for t in p}, key=len)),
            labels=(Ranking(order=tuple(range(len({t for p in texts[n : n + 6] for t in p})))),),
        )
        for n in range(1400)
    ]
    report = measure_surface(wide)
    assert report is not None
    assert report.num_comparisons == 8000
    assert report.accuracy > 0.99
    assert report.rule.startswith("the one with fewer characters")
    assert report == measure_surface(wide)


def test_votes_on_one_pair_are_one_comparison() -> None:
    completions = (Completion(content="a"), Completion(content="b"))
    votes = [Preference(better=1, worse=0, by=f"v{n}") for n in range(2)] + [Preference(better=0, worse=1, by="v3")]
    settled = list(settle(Group(prompt="p", completions=completions, labels=tuple(votes))))
    assert [(c.better, c.worse) for c in settled] == [(1, 0)]
    assert list(settle(Group(prompt="p", completions=completions, labels=tuple(votes[1:])))) == []


def test_strange_texts_are_measured() -> None:
    strange = ["", " ", "\n\n", "\ud800", "𝒳" * 50, "a" * 10_000, "**bold** ```code```", "\x00"]
    groups = [pair(f"q{n}", strange[n % 8], strange[(n * 3 + 1) % 8]) for n in range(400)]
    report = measure_surface(groups)
    assert report is not None and 0 <= report.accuracy <= 1


def test_text_parts_have_the_surface_of_their_text() -> None:
    def in_parts(text: str) -> tuple[dict[str, object], ...]:
        return ({"role": "assistant", "content": [{"type": "text", "text": text[:5]}, {"text": text[5:]}]},)

    texts = answers(400)
    in_turns = [tuple(({"role": "assistant", "content": text},) for text in pair_) for pair_ in texts]
    plain = measure_surface([pair(f"q{n}", *sides) for n, sides in enumerate(in_turns)])
    parts = measure_surface([pair(f"q{n}", *map(in_parts, sides)) for n, sides in enumerate(texts)])
    assert plain is not None and plain == parts


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("train_hh", 0.47, 0.55),
        ("train_qafeedback", 0.48, 0.58),
        ("train_arena_bench", 0.68, 0.78),
        ("train_qlora_vicuna", 0.86, 0.93),
    ],
)
def test_real_data_are_as_they_were_measured(data_folder: Path, name: str, low: float, high: float) -> None:
    report = measure_surface(list(read_groups(data_folder / f"{name}.jsonl.gz")))
    assert report is not None and low < report.accuracy < high
    assert not report.is_alarming


@pytest.mark.parametrize("leak", ["longer", "a list", "a first word"])
def test_a_leak_planted_in_real_data_is_found(data_folder: Path, leak: str) -> None:
    rows = read_groups(data_folder / "train_hh.jsonl.gz")
    texts = [(g.prompt, g.completions[0].text, g.completions[1].text) for g in rows]
    groups = [pair(prompt, *LEAKS[leak](a or "-", b or "-")) for prompt, a, b in texts if len(a) != len(b)]
    report = measure_surface(groups)
    assert report is not None and report.is_alarming, report
