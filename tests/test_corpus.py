"""Data files become training and evaluation data: nothing is lost without a count, and nothing is measured on twice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.corpus import Corpus, CorpusSettings, Part, read_corpus
from plaudit.corpus.mixture import find_overlap
from plaudit.corpus.settings import name_parts
from plaudit.corpus.sift import Ledger, Sieve, is_contradiction
from plaudit.errors import ConfigError, DataError
from plaudit.formats import Columns
from plaudit.group import Completion, Group, Label, Preference, Ranking, Ratings, Tie, pair
from plaudit.keys import opening_key, prompt_key

Json = dict[str, Any]


def rows(n: int, start: int = 0, **more: Any) -> list[Json]:
    """Pairs that nothing gives away: answers of one length."""
    rng = random.Random(start)
    made = []
    for k in range(start, start + n):
        a, b = (f"{rng.randrange(10**9):09d}" for _ in range(2))
        made.append({"id": f"r{k}", "prompt": f"question {k}?", "chosen": a, "rejected": b, **more})
    return made


def native(lines: Iterable[Json]) -> list[Json]:
    """Pairs as native rows, to stand in one file with other native rows."""
    label = {"better": 0, "worse": 1}
    return [
        {"id": r["id"], "prompt": r["prompt"], "completions": [r["chosen"], r["rejected"]], "labels": [label]}
        for r in lines
    ]


def write(path: Path, lines: Iterable[Json]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def read(*parts: Part | str, evals: Iterable[Part | str] = (), **options: Any) -> Corpus:
    def as_part(part: Part | str) -> Part:
        return Part(path=part) if isinstance(part, str) else part

    return read_corpus(
        CorpusSettings(parts=tuple(map(as_part, parts)), evals=tuple(map(as_part, evals)), **options),
    )


def ids(groups: Iterable[Group]) -> list[str | None]:
    return [group.id for group in groups]


def said(corpus: Corpus, words: str) -> str:
    """The one note that holds these words."""
    [note] = [note for note in corpus.notes if words in note]
    return note


def alarmed(corpus: Corpus, words: str) -> str:
    [alarm] = [alarm for alarm in corpus.alarms if words in alarm]
    return alarm


class TestSplit:
    def test_without_evaluation_data_a_share_of_the_prompts_is_set_aside(self, tmp_path: Path) -> None:
        corpus = read(write(tmp_path / "a.jsonl", rows(400)))
        assert len(corpus.evals["eval"]) == 20 and len(corpus.train) == 380
        assert sorted([*ids(corpus.train), *ids(corpus.evals["eval"])]) == sorted(f"r{k}" for k in range(400))
        note = said(corpus, "no evaluation data came")
        assert "20 prompts of 400 (20 groups of 400) set aside as 'eval'" in note
        assert "split.eval_share 0.05, seed 0" in note

    def test_all_groups_of_a_prompt_stay_together_in_whatever_dress(self, tmp_path: Path) -> None:
        lines = rows(200)
        dressed = [{**line, "id": f"d{k}", "prompt": f"  QUESTION  {k}?\n"} for k, line in enumerate(rows(200, 500))]
        turned = [
            {**line, "id": f"t{k}", "prompt": [{"role": "user", "content": f"Question {k}?"}]}
            for k, line in enumerate(rows(200, 900))
        ]
        a, b = write(tmp_path / "a.jsonl", [*lines, *dressed]), write(tmp_path / "b.jsonl", turned)
        corpus = read(a, b)
        kept = {prompt_key(group) for group in corpus.evals["eval"]}
        assert len(kept) == 10 and len(corpus.evals["eval"]) == 30
        assert not kept & {prompt_key(group) for group in corpus.train}

    def test_conversations_are_not_cut_in_two(self, tmp_path: Path) -> None:
        def turns(n: int, depth: int) -> list[Json]:
            first = [{"role": "user", "content": f"start {n}"}]
            for k in range(depth):
                first += [{"role": "assistant", "content": f"a{n} {k}"}, {"role": "user", "content": f"u{n} {k}"}]
            return first

        lines = [{**line, "prompt": turns(k // 3, k % 3)} for k, line in enumerate(rows(300))]
        corpus = read(write(tmp_path / "a.jsonl", lines), eval_share=0.1)
        kept = {opening_key(group) for group in corpus.evals["eval"]}
        assert len(kept) == 10 and len(corpus.evals["eval"]) == 30
        assert not kept & {opening_key(group) for group in corpus.train}

    def test_a_greeting_that_opens_everything_does_not_swallow_the_data(self, tmp_path: Path) -> None:
        def greeted(k: int) -> list[Json]:
            hello = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]
            return (
                [*hello, {"role": "user", "content": f"question {k}"}] if k < 150 else [hello[0] | {"content": f"{k}"}]
            )

        lines = [{**line, "prompt": greeted(k)} for k, line in enumerate(rows(300))]
        for seed in range(5):
            corpus = read(write(tmp_path / "a.jsonl", lines), seed=seed)
            assert 10 <= len(corpus.evals["eval"]) <= 23
        only_greeted = [{**line, "prompt": greeted(k)} for k, line in enumerate(rows(100))]
        corpus = read(write(tmp_path / "b.jsonl", only_greeted))
        assert len(corpus.evals["eval"]) == 5
        assert "together" not in said(corpus, "no evaluation data came")

    def test_one_prompt_cannot_be_split(self, tmp_path: Path) -> None:
        corpus = read(write(tmp_path / "a.jsonl", [{**line, "prompt": "the same"} for line in rows(50)]))
        assert corpus.evals == {} and len(corpus.train) == 50
        assert "one prompt" in alarmed(corpus, "none can be set aside")

    @pytest.mark.parametrize("number", [2, 3, 4, 5, 7])
    @pytest.mark.parametrize("share", [0.01, 0.5])
    def test_few_prompts_leave_something_on_both_sides(self, tmp_path: Path, number: int, share: float) -> None:
        corpus = read(write(tmp_path / "a.jsonl", rows(number)), eval_share=share)
        assert len(corpus.train) >= 1 and len(corpus.evals["eval"]) >= 1
        assert "uncertain by up to" in said(corpus, "eval:")

    def test_no_share_is_no_evaluation(self, tmp_path: Path) -> None:
        corpus = read(write(tmp_path / "a.jsonl", rows(50)), eval_share=0.0)
        assert corpus.evals == {} and len(corpus.train) == 50
        assert "nothing measures" in said(corpus, "eval_share is 0")

    def test_rows_without_a_prompt_are_split_by_how_they_begin(self, tmp_path: Path) -> None:
        lines = [
            {
                "chosen": f"Q: what is {k // 4}?\nA: {line['chosen']}",
                "rejected": f"Q: what is {k // 4}?\nA: {line['rejected']}",
            }
            for k, line in enumerate(rows(400))
        ]
        corpus = read(write(tmp_path / "a.jsonl", lines))
        questions = {group.completions[0].text.split("\n")[0] for group in corpus.evals["eval"]}
        assert len(questions) == 5 and len(corpus.evals["eval"]) == 20
        assert not questions & {group.completions[0].text.split("\n")[0] for group in corpus.train}

    def test_a_split_is_drawn_by_prompt_and_stays_when_data_are_added(self, tmp_path: Path) -> None:
        lines = rows(1000)
        before = set(ids(read(write(tmp_path / "a.jsonl", lines[:900])).evals["eval"]))
        after = set(ids(read(write(tmp_path / "a.jsonl", lines)).evals["eval"]))
        assert len(before & after) >= 43  # of 45: the share moves by a few, not the lots
        assert set(ids(read(write(tmp_path / "a.jsonl", lines), seed=1).evals["eval"])) != after


class TestOverlap:
    def test_shared_prompts_are_refused_with_examples(self, tmp_path: Path) -> None:
        train = write(tmp_path / "train.jsonl", rows(100))
        test = write(tmp_path / "test.jsonl", [{**r, "prompt": r["prompt"].upper() + " "} for r in rows(20, 90)])
        with pytest.raises(DataError) as caught:
            read(train, evals=[test])
        text = str(caught.value)
        assert "10 of 20 prompts of test" in text and "QUESTION 90?" in text and "force_overlap=true" in text

    def test_whoever_insists_is_warned(self, tmp_path: Path) -> None:
        train, test = write(tmp_path / "train.jsonl", rows(100)), write(tmp_path / "test.jsonl", rows(20, 90))
        corpus = read(train, evals=[test], force_overlap=True)
        assert len(corpus.train) == 100 and len(corpus.evals["test"]) == 20
        assert "10 of 20 prompts of test" in alarmed(corpus, "as you allowed")

    def test_the_training_file_itself_is_no_evaluation_data(self, tmp_path: Path) -> None:
        train = write(tmp_path / "train.jsonl", rows(30))
        with pytest.raises(DataError, match="30 of 30 prompts of train"):
            read(train, evals=[train])

    def test_going_on_with_a_trained_conversation_is_said(self, tmp_path: Path) -> None:
        def turns(k: int, more: bool) -> list[Json]:
            first = [{"role": "user", "content": f"start {k}"}]
            return [*first, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}] if more else first

        train = write(tmp_path / "train.jsonl", [{**r, "prompt": turns(k, False)} for k, r in enumerate(rows(50))])
        test = write(tmp_path / "test.jsonl", [{**r, "prompt": turns(k, True)} for k, r in enumerate(rows(10, 99))])
        corpus = read(train, evals=[test])
        assert (
            said(corpus, "go on with")
            == "test: 10 prompts of 10 go on with a conversation that is in the training data"
        )

    def test_clean_evaluation_data_are_kept_in_their_order_and_all_the_data_train(self, tmp_path: Path) -> None:
        train, test = write(tmp_path / "train.jsonl", rows(50)), write(tmp_path / "test.jsonl", rows(20, 500))
        corpus = read(train, evals=[test])
        assert ids(corpus.evals["test"]) == [f"r{k}" for k in range(500, 520)]
        assert len(corpus.train) == 50 and corpus.alarms == []


class TestWeights:
    @pytest.mark.parametrize(
        ("weight", "expected"), [(0.25, {0: 75, 1: 25}), (3.0, {3: 100}), (2.5, {2: 50, 3: 50}), (1.0, {1: 100})]
    )
    def test_a_weight_is_a_share_to_the_group(self, tmp_path: Path, weight: float, expected: dict[int, int]) -> None:
        part = Part(path=write(tmp_path / "a.jsonl", rows(100)), weight=weight)
        corpus = read(part, write(tmp_path / "b.jsonl", rows(40, 1000)), eval_share=0.0)
        count = Counter(ids(corpus.train))
        assert Counter(count[f"r{k}"] for k in range(100)) == expected
        assert all(count[f"r{k}"] == 1 for k in range(1000, 1040))
        if weight != 1:
            used = sum(times * number for times, number in expected.items())
            assert f"by its weight of {weight:g}, {used} are used" in said(corpus, "a: 100 groups read")

    def test_a_mix_of_weights_and_a_split(self, tmp_path: Path) -> None:
        parts = [
            Part(path=write(tmp_path / f"{w}.jsonl", rows(400, n * 1000)), weight=w) for n, w in enumerate((0.25, 3.0))
        ]
        corpus = read(*parts, eval_share=0.1)
        kept = ids(corpus.evals["eval"])
        assert len(kept) == len(set(kept)) == 50  # of 100 + 400 prompts, and no copies
        count = Counter(ids(corpus.train))
        assert not set(kept) & set(count)
        light, heavy = ([count[f"r{n * 1000 + k}"] for k in range(400)] for n in (0, 1))
        assert set(light) == {0, 1} and set(heavy) == {0, 3}
        assert sum(light) + sum(heavy) // 3 == 450

    def test_a_small_share_takes_one_at_least(self, tmp_path: Path) -> None:
        corpus = read(Part(path=write(tmp_path / "a.jsonl", rows(5)), weight=0.01), eval_share=0.0)
        assert len(corpus.train) == 1

    def test_a_share_does_not_take_what_stands_first(self, tmp_path: Path) -> None:
        corpus = read(Part(path=write(tmp_path / "a.jsonl", rows(1000)), weight=0.5), eval_share=0.0)
        places = [int(str(group.id)[1:]) for group in corpus.train]
        assert sum(place < 500 for place in places) == pytest.approx(250, abs=50)
        assert places != sorted(places)

    def test_evaluation_data_can_be_thinned_but_not_repeated(self, tmp_path: Path) -> None:
        train, test = write(tmp_path / "train.jsonl", rows(50)), write(tmp_path / "test.jsonl", rows(40, 500))
        corpus = read(train, evals=[Part(path=test, weight=0.25)])
        assert len(corpus.evals["test"]) == 10 and "by its weight of 0.25, 10 groups" in said(corpus, "are measured on")
        with pytest.raises(ConfigError, match="weight 2 came for evaluation data"):
            read(train, evals=[Part(path=test, weight=2.0)])

    @pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_weight_is_a_number_over_zero(self, weight: float) -> None:
        with pytest.raises(ConfigError, match=r"a\.jsonl: the weight .* came, a number over 0 was needed"):
            Part(path="a.jsonl", weight=weight)


class TestOrder:
    def test_files_in_any_order_give_the_same_corpus(self, tmp_path: Path) -> None:
        sets = (rows(40), rows(60, 100), [*rows(30, 200), *rows(10, 100)])
        parts = [
            Part(path=write(tmp_path / f"{n}.jsonl", lines), weight=weight)
            for n, (lines, weight) in enumerate(zip(sets, (1.0, 0.5, 2.5), strict=True))
        ]
        corpora = [read(*order, seed=3) for order in permutations(parts)]
        for other in corpora[1:]:
            assert other.train == corpora[0].train
            assert sorted(ids(other.evals["eval"]), key=str) == sorted(ids(corpora[0].evals["eval"]), key=str)
            assert sorted(other.notes) == sorted(corpora[0].notes)
            assert sorted(other.alarms) == sorted(corpora[0].alarms)
            assert other.digests == corpora[0].digests

    def test_rows_in_any_order_give_the_same_corpus(self, tmp_path: Path) -> None:
        lines = [*rows(60), *rows(20)]
        one = read(Part(path=write(tmp_path / "a.jsonl", lines), weight=1.5))
        random.Random(5).shuffle(lines)
        other = read(Part(path=write(tmp_path / "a.jsonl", lines), weight=1.5))
        assert one.train == other.train and one.notes == other.notes

    def test_a_seed_is_another_corpus_and_the_same_one_each_time(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", rows(100))
        assert read(path).train == read(path).train
        assert ids(read(path, seed=1).train) != ids(read(path).train)

    @settings(max_examples=25)
    @given(st.data())
    def test_nothing_is_lost(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        folder = tmp_path_factory.mktemp("data")
        sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
        weights = data.draw(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=len(sizes), max_size=len(sizes)))
        share = data.draw(st.sampled_from([0.0, 0.05, 0.3, 0.5]))
        parts = [
            Part(path=write(folder / f"{n}.jsonl", rows(size, n * 100)), weight=weight)
            for n, (size, weight) in enumerate(zip(sizes, weights, strict=True))
        ]
        corpus = read(*parts, eval_share=share, seed=data.draw(st.integers(0, 99)))
        kept = [group.id for groups in corpus.evals.values() for group in groups]
        count = Counter(ids(corpus.train)) + Counter(dict.fromkeys(kept, 0))
        for n, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
            for k in range(size):
                name = f"r{n * 100 + k}"
                assert (name in kept) != (count[name] > 0)
                assert count[name] in (0, int(weight))


class TestSifting:
    def test_what_teaches_nothing_is_left_out_under_its_reason(self, tmp_path: Path) -> None:
        two = ["yes", "no"]
        lines: list[Json] = [
            {"prompt": "1", "completions": ["alone"], "labels": []},
            {"prompt": "2", "completions": ["alone"], "labels": [{"ratings": [3]}]},
            {"prompt": "3", "completions": two, "labels": []},
            {"prompt": "4", "completions": two, "labels": [{"ratings": [3, None]}]},
            {"prompt": "5", "completions": ["yes", "yes"], "labels": [{"better": 0, "worse": 1}]},
            {"prompt": "6", "completions": two, "labels": [{"better": 0, "worse": 1, "weight": 0}]},
            {"prompt": "7", "completions": ["yes", "yes"], "labels": [{"tie": [0, 1]}]},
            {"prompt": "8", "completions": ["yes", "yes"], "labels": [{"ratings": [1, 2]}]},
            *({"prompt": f"good {k}", "completions": two, "labels": [{"better": 0, "worse": 1}]} for k in range(5)),
        ]
        corpus = read(write(tmp_path / "a.jsonl", lines))
        assert [note for note in corpus.notes if "left out" in note] == [
            "a: 3 groups of 13 left out: the completions that are compared are identical",
            "a: 2 groups of 13 left out: only one completion",
            "a: 1 group of 13 left out: every label has weight zero",
            "a: 1 group of 13 left out: no label",
            "a: 1 group of 13 left out: no label compares two completions",
        ]

    def test_labels_that_say_nothing_are_taken_out_of_groups_that_stay(self, tmp_path: Path) -> None:
        line = {
            "id": "x",
            "prompt": "p",
            "completions": ["a", "b", "a", "c"],
            "labels": [
                {"better": 0, "worse": 2},
                {"better": 0, "worse": 1},
                {"order": [2, 1, 0, 3]},
                {"order": [0, 2]},
                {"tie": [0, 2]},
                {"better": 1, "worse": 3, "weight": 0},
                {"ratings": [1, 2, 3, 4]},
            ],
        }
        corpus = read(write(tmp_path / "a.jsonl", [line, *native(rows(5))]), eval_share=0.0)
        [group] = [group for group in corpus.train if group.id == "x"]
        assert [type(label).__name__ for label in group.labels] == ["Preference", "Ranking", "Ratings"]
        assert isinstance(group.labels[1], Ranking) and group.labels[1].order == (2, 1, 3)
        assert isinstance(group.labels[2], Ratings) and group.labels[2].ratings == (1, 2, 3, 4)
        assert group.completions == tuple(Completion(content=text) for text in "abac")
        notes = [note for note in corpus.notes if note.startswith("a: ") and "label" in note]
        assert "a: 3 labels over identical completions taken out" in notes
        assert "a: 1 label of weight zero taken out" in notes
        assert "a: 1 ranking cut, as a completion came twice in it and its first place counts" in corpus.notes

    def test_ties_teach_or_are_dropped(self, tmp_path: Path) -> None:
        tie = {"prompt": "t", "completions": ["a", "b"], "labels": [{"tie": [0, 1]}]}
        path = write(tmp_path / "a.jsonl", [tie, *native(rows(5))])
        assert len(read(path, eval_share=0.0).train) == 6
        dropped = read(path, eval_share=0.0, ties="drop")
        assert len(dropped.train) == 5
        assert said(dropped, "left out") == "a: 1 group of 6 left out: every label is a tie, and loss.ties is drop"
        # What is measured on keeps its ties whatever the loss does with them.
        kept = read(
            path, ties="drop", evals=[write(tmp_path / "b.jsonl", [{**tie, "prompt": "u"}, *native(rows(5, 50))])]
        )
        assert len(kept.evals["b"]) == 6

    @pytest.mark.parametrize("ties", ["half", "drop"])
    def test_ties_only_are_refused(self, tmp_path: Path, ties: str) -> None:
        lines = [{"prompt": f"{k}", "completions": ["a", "b"], "labels": [{"tie": [0, 1]}]} for k in range(7)]
        with pytest.raises(DataError, match=r"a: of 7 groups, 7 (ties|every label is a tie)"):
            read(write(tmp_path / "a.jsonl", lines), ties=ties)
        with pytest.raises(DataError, match="nothing in the evaluation set a says which completion is better"):
            read(write(tmp_path / "b.jsonl", rows(5)), evals=[str(tmp_path / "a.jsonl")])

    def test_one_completion_only_is_refused(self, tmp_path: Path) -> None:
        lines = [{"prompt": f"{k}", "completions": ["a"]} for k in range(1234)]
        with pytest.raises(DataError) as caught:
            read(write(tmp_path / "a.jsonl", lines))
        assert str(caught.value) == "no group is left to learn from: a: of 1,234 groups, 1,234 only one completion"

    def test_a_part_that_adds_nothing_is_an_alarm(self, tmp_path: Path) -> None:
        empty = write(tmp_path / "empty.jsonl", [{"prompt": f"{k}", "completions": ["a", "b"]} for k in range(9)])
        corpus = read(write(tmp_path / "a.jsonl", rows(50)), empty)
        assert alarmed(corpus, "adds nothing") == "empty adds nothing to the training data: of 9 groups, 9 no label"

    def test_ratings_are_enough_where_they_are_learned(self, tmp_path: Path) -> None:
        lines = [{"prompt": f"{k}", "completions": [f"a{k}"], "labels": [{"ratings": [k % 5]}]} for k in range(40)]
        corpus = read(write(tmp_path / "a.jsonl", [*lines, *native(rows(3))]), learns="ratings")
        assert len(corpus.train) + len(corpus.evals["eval"]) == 40
        assert said(corpus, "left out") == "a: 3 groups of 43 left out: no ratings, which regression learns from"
        assert corpus.alarms == []
        with pytest.raises(DataError, match="3 no ratings"):
            read(write(tmp_path / "b.jsonl", rows(3)), learns="ratings")
        pairs = read(str(tmp_path / "a.jsonl"), evals=[write(tmp_path / "c.jsonl", rows(9, 60))], learns="ratings")
        assert len(pairs.evals["c"]) == 9

    def test_k_way_groups_and_ratings_count_what_they_say(self, tmp_path: Path) -> None:
        lines: list[Json] = [
            {"prompt": "k", "completions": list("abcd"), "labels": [{"order": [3, 1, 0, 2]}]},
            {"prompt": "l", "completions": list("abc"), "labels": [{"ratings": [1, None, 3]}]},
            {"prompt": "m", "completions": list("abc"), "scores": [1, 1, 3]},
        ]
        paths = write(tmp_path / "a.jsonl", lines[:2]), write(tmp_path / "b.jsonl", lines[2:])
        corpus = read(*paths, eval_share=0.0)
        assert said(corpus, "a: 2 groups read") == "a: 2 groups read, 2 taken with 7 comparisons and 0 ties"
        assert said(corpus, "b: 1 group read") == "b: 1 group read, 1 taken with 2 comparisons and 1 tie"

    def test_rows_without_an_id_are_named_by_file_and_line(self, tmp_path: Path) -> None:
        lines = [{k: v for k, v in row.items() if k != "id"} for row in rows(3)]
        path = write(tmp_path / "a.jsonl", lines)
        assert sorted(map(str, ids(read(path, eval_share=0.0).train))) == [f"{path}:{k}" for k in (1, 2, 3)]


class TestFindings:
    def test_copies_are_counted(self, tmp_path: Path) -> None:
        few = read(write(tmp_path / "a.jsonl", [*rows(200), *rows(5)]))
        assert "training data: 5 groups of 205 came before, the same to the letter" in said(few, "came before")
        assert len(few.train) + len(few.evals["eval"]) == 205
        many = read(write(tmp_path / "a.jsonl", rows(50)), write(tmp_path / "b.jsonl", rows(50)))
        assert "50 groups of 100" in alarmed(many, "came before")

    def test_labels_both_ways_are_counted(self, tmp_path: Path) -> None:
        turned = [{**r, "chosen": r["rejected"], "rejected": r["chosen"], "id": f"t{r['id']}"} for r in rows(3)]
        few = read(write(tmp_path / "a.jsonl", [*rows(200), *turned]))
        assert "3 pairs of 200 are judged both ways in different rows; they are kept" in said(few, "both ways")
        assert "203 comparisons" in said(few, "a: 203 groups read")
        many = read(write(tmp_path / "b.jsonl", [*rows(20), *turned]))
        assert "3 pairs of 20" in alarmed(many, "both ways")

    def test_labellers_who_disagree_are_no_contradiction(self, tmp_path: Path) -> None:
        votes = [{**row, "votes": [1, -1, 1]} for row in rows(30)]
        named = [{**row, "by": "ann1"} for row in rows(30, 100)]
        turned = [{**r, "chosen": r["rejected"], "rejected": r["chosen"], "by": "ann2"} for r in named]
        corpus = read(write(tmp_path / "votes.jsonl", votes), write(tmp_path / "named.jsonl", [*named, *turned]))
        assert "labellers disagree on 60 pairs of 60" in said(corpus, "labellers disagree")
        assert corpus.alarms == []

    def test_only_white_space_between_two_completions_is_said(self, tmp_path: Path) -> None:
        lines = [*rows(10), {"prompt": "w", "chosen": "a  b\n", "rejected": "a b"}]
        corpus = read(write(tmp_path / "a.jsonl", lines), eval_share=0.0)
        assert len(corpus.train) == 11
        assert "a: 1 pair of completions that differ only in white space (kept)" in corpus.notes

    def test_negative_margins_are_said(self, tmp_path: Path) -> None:
        lines = [{**row, "margin": -1.0 if k < 2 else 1.0} for k, row in enumerate(rows(10))]
        corpus = read(write(tmp_path / "a.jsonl", lines))
        assert "a: 2 labels with a negative margin" in said(corpus, "negative margin")

    def test_few_pairs_are_said_and_votes_are_not_pairs(self, tmp_path: Path) -> None:
        many = read(write(tmp_path / "a.jsonl", rows(2000)), eval_share=0.0)
        assert not any("fewer than" in note for note in many.notes)
        few = read(write(tmp_path / "a.jsonl", [{**row, "votes": [1, 1]} for row in rows(1999)]), eval_share=0.0)
        assert "1,999 pairs that are compared, fewer than 2,000" in said(few, "fewer than")

    def test_small_evaluation_sets_are_said(self, tmp_path: Path) -> None:
        train = write(tmp_path / "a.jsonl", rows(50))
        few = read(train, evals=[write(tmp_path / "few.jsonl", rows(25, 500))])
        assert "an accuracy measured on it is uncertain by up to 20 points" in said(few, "few: 25 compared pairs on 25")
        one_prompt = [{**row, "prompt": "one"} for row in rows(300, 500)]
        assert "on 1 prompt" in said(read(train, evals=[write(tmp_path / "one.jsonl", one_prompt)]), "uncertain")
        enough = read(train, evals=[write(tmp_path / "many.jsonl", rows(300, 500))])
        assert not any("uncertain" in note for note in enough.notes)

    def test_a_leak_in_one_part_is_an_alarm_that_names_it(self, tmp_path: Path) -> None:
        leaking = [{**row, "chosen": f"Sure! {row['chosen']}"} for row in rows(200, 5000)]
        corpus = read(write(tmp_path / "sound.jsonl", rows(2000)), write(tmp_path / "leaking.jsonl", leaking))
        alarm = alarmed(corpus, "read off the surface")
        assert alarm.startswith("leaking: the label can be read off the surface")
        assert corpus.surface["leaking"].is_alarming and not corpus.surface["sound"].is_alarming
        assert "of 2,000 comparisons on 2,000 prompts" in said(corpus, "sound: the looks of two completions alone")

    def test_too_few_to_look_at_is_said(self, tmp_path: Path) -> None:
        corpus = read(write(tmp_path / "a.jsonl", [{**r, "chosen": "long " * 9} for r in rows(60)]))
        assert "was not checked" in said(corpus, "looks alone") and corpus.surface == {}

    def test_checks_can_be_left_out_and_then_the_rest_is_the_same(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [*rows(300), *rows(60)])
        checked, unchecked = read(path), read(path, checks=False)
        assert unchecked.train == checked.train and unchecked.surface == {} and unchecked.alarms == []
        assert set(unchecked.notes) < set(checked.notes)


class TestReading:
    def test_names(self) -> None:
        paths = [
            "x/hh.jsonl.gz",
            "a/test.jsonl",
            "b/test.jsonl",
            "hub:org/set:en@train",
            "hub:org/set:de@train",
            "d/*.jsonl",
        ]
        names = name_parts([Part(path=path) for path in paths])
        assert names == ["hh", "a-test", "b-test", "en-train-set", "de-train-set", "d"]
        assert name_parts([Part(path="hub:org/set@test")]) == ["set"]
        assert name_parts([Part(path="a.jsonl", name="My set"), Part(path="b/a.jsonl")]) == ["My set", "a"]
        assert name_parts([Part(path="a.jsonl", name="a"), Part(path="b/a.jsonl")]) == ["a", "b-a"]
        assert name_parts([Part(path="a.jsonl"), Part(path="a.jsonl")]) == ["a", "a-2"]
        assert name_parts([Part(path="-"), Part(path="v1.5"), Part(path="s3://bucket/v2.parquet")]) == [
            "stdin",
            "v1.5",
            "v2",
        ]
        with pytest.raises(ConfigError, match="2 parts are named 'x'"):
            name_parts([Part(path="a.jsonl", name="x"), Part(path="b.jsonl", name="x")])

    def test_evaluation_sets_of_one_name_are_told_apart(self, tmp_path: Path) -> None:
        train = write(tmp_path / "train.jsonl", rows(20))
        tests = [
            write(tmp_path / name / "test.jsonl", rows(9, start)) for name, start in (("math", 100), ("code", 200))
        ]
        corpus = read(train, evals=tests)
        assert list(corpus.evals) == ["math-test", "code-test"]
        assert ids(corpus.evals["code-test"])[0] == "r200"

    def test_what_is_not_there_is_said_before_anything_is_read(self, tmp_path: Path) -> None:
        train = write(tmp_path / "train.jsonl", [{"broken": True}])
        with pytest.raises(DataError, match=r"nowhere\.jsonl: there is no such file"):
            read(train, evals=[str(tmp_path / "nowhere.jsonl")])

    def test_columns_formats_and_limits_reach_the_reader(self, tmp_path: Path) -> None:
        lines = [{"q": r["prompt"], "win": r["chosen"], "lose": r["rejected"]} for r in rows(50)]
        part = Part(
            path=write(tmp_path / "a.jsonl", lines),
            format="preference",
            columns=Columns(prompt="q", chosen="win", rejected="lose"),
            limit=10,
        )
        corpus = read(part, eval_share=0.0)
        assert len(corpus.train) == 10
        assert "as --format says" in said(corpus, "read as") and "first 10 groups" in said(corpus, "its limit")

    def test_bad_rows_go_aside_and_many_are_an_alarm(self, tmp_path: Path) -> None:
        lines = [*rows(18), {"chosen": 3}, {"chosen": 4}, {"chosen": 5}]
        path, aside = write(tmp_path / "a.jsonl", lines), tmp_path / "bad.jsonl"
        with pytest.raises(DataError, match=r"a\.jsonl, line 19"):
            read(path)
        corpus = read(Part(path=path, bad_rows=f"skip={aside}"))
        assert len(aside.read_text().splitlines()) == 3
        assert "3 of 21 rows were bad" in said(corpus, "were written to") and alarmed(corpus, "3 of 21 rows were bad")

    def test_bad_rows_of_two_parts_need_two_places(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{n}.jsonl", rows(3, n)) for n in range(2)]
        with pytest.raises(ConfigError, match="bad rows of 2 parts would replace each other"):
            read(*(Part(path=path, bad_rows="skip=bad.jsonl") for path in paths))

    def test_columns_of_other_names_are_told_as_the_configuration_has_them(self, tmp_path: Path) -> None:
        odd = write(tmp_path / "a.jsonl", [{"ask": "q", "reply": "a"}])
        with pytest.raises(DataError, match=r"no dialect fits .*data=\[\{path: ..., chosen_key: ") as caught:
            read(odd)
        assert "--" not in str(caught.value)

    def test_stdin_is_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows(20))

        class Piped:
            buffer = io.BytesIO(text.encode())

        monkeypatch.setattr("sys.stdin", Piped)
        corpus = read("-", eval_share=0.0)
        assert len(corpus.train) == 20 and said(corpus, "stdin: 20 groups read")
        assert corpus.digests == {"stdin": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"}
        with pytest.raises(ConfigError, match="stdin"):
            read("-", evals=["-"])

    def test_digests_know_bytes_and_nothing_else(self, tmp_path: Path) -> None:
        one, same = write(tmp_path / "a.jsonl", rows(20)), write(tmp_path / "b" / "c.jsonl", rows(20))
        other = write(tmp_path / "d.jsonl", rows(21))
        digests = [next(iter(read(path).digests.values())) for path in (one, same, other)]
        assert digests[0] == digests[1] != digests[2]
        assert digests[0].startswith("sha256:") and len(digests[0]) == 71
        assert set(read(one, evals=[write(tmp_path / "e.jsonl", rows(5, 90))]).digests) == {
            one,
            str(tmp_path / "e.jsonl"),
        }

    @pytest.mark.parametrize("option", [{"eval_share": 0.6}, {"eval_share": -0.1}, {"buffer": 0}, {"parts": ()}])
    def test_settings_that_cannot_be_used(self, option: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="came"):
            CorpusSettings(**({"parts": (Part(path="a"),)} | option))

    def test_a_limit_is_at_least_one(self) -> None:
        with pytest.raises(ConfigError, match="limit 0"):
            Part(path="a", limit=0)


def ledger_of(*groups: Group) -> Ledger:
    sieve, ledger = Sieve(CorpusSettings(parts=(Part(path="a.jsonl"),)), is_training=False), Ledger()
    for group in groups:
        sifted = sieve.take(group)
        assert sifted is not None
        ledger.add(sifted)
    return ledger


def test_a_tie_contradicts_no_preference() -> None:
    answers = tuple(Completion(content=text) for text in ("yes", "no"))

    def judged(label: Label) -> Group:
        return Group(prompt="q", completions=answers, labels=(label,))

    better = [Preference(better=0, worse=1), Preference(better=1, worse=0)]
    ties = [Tie(tie=(0, 1)), Tie(tie=(1, 0))]
    # A tie says that neither is better, in whatever order it names the two.
    for preference in better:
        ledger = ledger_of(*map(judged, [ties[0], preference, *ties]))
        assert ledger.count_conflicts() == (0, 0) and ledger.num_pairs == 1
    assert ledger_of(*map(judged, ties)).num_pairs == 0
    assert ledger_of(*map(judged, better)).count_conflicts() == (1, 0)


def test_ratings_of_identical_completions_are_no_pair() -> None:
    answers = tuple(Completion(content=text) for text in ("yes", "yes", "no"))
    rated = Group(prompt="q", completions=answers, labels=(Ratings(ratings=(2.0, 1.0, 0.0)),))
    swapped = Group(prompt="q", completions=answers, labels=(Ratings(ratings=(1.0, 2.0, 0.0)),))
    ledger = ledger_of(rated, swapped)
    assert ledger.num_pairs == 1 and ledger.count_conflicts() == (0, 0)


def test_reading_data_does_not_wake_torch() -> None:
    code = "import plaudit.corpus, sys; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "False"


def test_sixteen_thousand_pairs_take_seconds(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = [f"word{k}" for k in range(500)]

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(words, k=rng.randrange(low, high)))

    lines = [{"prompt": text(20, 200), "chosen": text(20, 200), "rejected": text(20, 200)} for _ in range(16_000)]
    path = write(tmp_path / "a.jsonl", lines)
    start = time.process_time()
    corpus = read(path)
    assert time.process_time() - start < 20  # some 4 seconds on a quiet machine
    assert len(corpus.train) + len(corpus.evals["eval"]) == 16_000 and corpus.alarms == []


def test_the_real_training_data_read_whole(data_folder: Path) -> None:
    paths = sorted(str(path) for path in data_folder.glob("train_*.jsonl.gz"))
    corpus = read(*(Part(path=path, weight=0.25 if "ukp" in path else 1.0, limit=700) for path in paths))
    assert corpus.alarms == []
    read_each = [re.search(r": ([\d,]+) groups read, ", note) for note in corpus.notes]
    assert sum(int(found[1].replace(",", "")) for found in read_each if found) == 5 * 700 + 500 + 610 + 362 + 336
    kept = {opening_key(group) for group in corpus.evals["eval"]}
    assert kept and not kept & {opening_key(group) for group in corpus.train}
    assert len(corpus.digests) == len(paths)


def test_real_evaluation_data_are_clean(data_folder: Path) -> None:
    evals = [str(data_folder / f"bench_{name}.jsonl.gz") for name in ("hhh", "llmbar")]
    corpus = read(str(data_folder / "train_hh.jsonl.gz"), evals=evals)
    assert list(corpus.evals) == ["bench_hhh", "bench_llmbar"]
    assert len(corpus.train) == 3837


def test_prompts_that_continue_a_trained_conversation_are_counted_apart_from_shared_ones() -> None:
    def example(opening: str, prompt: str) -> Any:
        group = pair(prompt, "a", "b")
        return SimpleNamespace(opening=opening, prompt=prompt, group=group)

    evaluated = [example("x", "shared"), example("x", "continued"), example("y", "unrelated"), example("y", "other")]
    found = find_overlap("eval", evaluated, {"shared"}, {"x"})
    assert (found.num_prompts, found.num_shared, found.num_begun, found.examples) == (4, 1, 1, ("shared",))
    many = find_overlap("eval", [example("x", name) for name in "abcde"], set("abcde"), {"x"})
    assert many.num_shared == 5 and many.examples == ("a", "b", "c")


@pytest.mark.parametrize(
    ("statements", "contradicts"),
    [
        ([(True, "ann", 1), (False, "ann", 2)], True),
        ([(True, None, 1), (False, "ann", 2)], True),
        ([(True, "ann", 1), (False, "bob", 2)], False),
        ([(True, "ann", 1), (True, "ann", 2)], False),
        ([(True, "ann", 1), (False, "ann", 1)], False),
        ([(True, "ann", 1), (False, "bob", 2), (False, "ann", 3)], True),
    ],
    ids=["both ways", "by nobody in particular", "two annotators", "twice the same", "in one group", "the third"],
)
def test_a_contradiction_is_one_annotator_both_ways_in_two_groups(
    statements: list[tuple[bool, str | None, int]], contradicts: bool
) -> None:
    assert is_contradiction(statements) is contradicts


def test_parts_of_one_hub_data_set_are_told_apart_by_config_and_split() -> None:
    paths = ("hub:owner/name", "hub:owner/name:config@test", "hub:owner/name:other@test", "hub:else/name")
    names = name_parts([Part(path=path) for path in paths])
    assert names == ["owner-name", "config-test-name", "other-test-name", "else-name"]
