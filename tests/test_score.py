"""score.py: a stream in and its Scores out, in order, with reasons, in bounded memory, and whatever lies beside."""

from __future__ import annotations

import math
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import plaudit
from plaudit.errors import ConfigError, InputError, ModelError
from plaudit.group import Completion, Content, Group
from plaudit.pack import Pack
from plaudit.render import Overlength, RenderSettings
from plaudit.score import SMALLEST_BUDGET, RewardModel, Scorer, Scores, ScoreSettings
from tiny import save_model

POISON = "w13"
"""A word whose embedding is not a number, in the model of one test."""


def words(rng: random.Random, low: int, high: int) -> str:
    """Some words of the tiny vocabulary, the poisonous one left out."""
    return " ".join(f"w{rng.randrange(14, 100)}" for _ in range(rng.randrange(low, high)))


def make_group(prompt: Content, *completions: Content) -> Group:
    return Group(prompt=prompt, completions=tuple(Completion(content=c) for c in completions))


def make_groups(n: int, seed: int = 0) -> list[Group]:
    """Groups of one to five completions, long and short."""
    rng = random.Random(seed)
    return [make_group(words(rng, 1, 60), *(words(rng, 1, 40) for _ in range(rng.randrange(1, 6)))) for _ in range(n)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("score") / "tiny")


@pytest.fixture(scope="module")
def rm(folder: Path) -> RewardModel:
    return plaudit.load(folder, dtype="float32", device="cpu")


def score_alone(rm: RewardModel, group: Group) -> list[float]:
    """Each completion alone: the template by the tokenizer, the score by transformers, nothing of ours between."""
    found = []
    for k in range(len(group.completions)):
        turns = [dict(turn) for turn in group.conversation(k)]
        ids = rm.tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.inference_mode(), rm.plain_attention() as hf:
            found.append(float(hf(input_ids=ids).logits[0, 0]))
    return found


def assert_close(found: Sequence[Scores], wanted: Sequence[Sequence[float]]) -> None:
    for scores, row in zip(found, wanted, strict=True):
        assert list(scores.scores) == pytest.approx(row, rel=1e-4, abs=1e-5)


class TestOrder:
    @pytest.mark.parametrize("window", [1, 3, 40, 1000])
    @pytest.mark.parametrize("share", [True, False])
    def test_scores_come_in_the_order_of_their_groups(self, rm: RewardModel, window: int, share: bool) -> None:
        groups = make_groups(40)
        settings = ScoreSettings(window=window, budget=300, share=share)
        found = list(rm.score_groups(iter(groups), settings=settings))
        assert_close(found, [score_alone(rm, group) for group in groups])
        assert all(scores.dropped is None and not any(scores.unscored) for scores in found)

    def test_a_window_at_once_and_a_stream_are_the_same(self, rm: RewardModel) -> None:
        groups = make_groups(7)
        scorer = Scorer(rm, ScoreSettings(window=7, budget=300))
        assert scorer.score_window(groups) == list(scorer.score_groups(groups))
        assert scorer.tally.groups == 14

    def test_nothing_in_is_nothing_out(self, rm: RewardModel) -> None:
        scorer = Scorer(rm)
        assert list(scorer.score_groups([])) == [] == scorer.score_window([])
        assert (scorer.tally.groups, scorer.tally.sharing, scorer.tally.unique_per_second) == (0, 1.0, 0.0)

    def test_one_scorer_serves_many_streams(self, rm: RewardModel) -> None:
        scorer, groups = Scorer(rm, ScoreSettings(window=4, budget=300)), make_groups(9)
        first = list(scorer.score_groups(groups))
        assert list(scorer.score_groups(groups)) == first

    def test_the_tally_says_what_was_computed(self, rm: RewardModel) -> None:
        rng = random.Random(1)
        group = make_group(words(rng, 50, 51), *(words(rng, 10, 11) for _ in range(4)))
        scorer = Scorer(rm, ScoreSettings(budget=1000))
        shares: list[float] = []
        scorer.score_rendered(scorer.renderer.render([group, make_group("w20", "")]), shares.append)
        tally = scorer.tally
        assert (tally.groups, tally.completions, tally.scored) == (2, 5, 4)
        assert tally.total_tokens > 2.5 * tally.unique_tokens
        assert tally.sharing == tally.total_tokens / tally.unique_tokens
        assert tally.unique_per_second == tally.unique_tokens / tally.seconds > 0
        assert shares == [1.0]

    def test_whoever_watches_hears_each_pack(self, rm: RewardModel) -> None:
        scorer = Scorer(rm, ScoreSettings(budget=100))
        shares: list[float] = []
        scorer.score_rendered(scorer.renderer.render(make_groups(10)), shares.append)
        assert len(shares) > 3 and shares == sorted(shares) and shares[-1] == 1.0 and shares[0] > 0


class TestPython:
    def test_one_prompt_and_its_completions(self, rm: RewardModel) -> None:
        answers = ["w21 w22", "w23", "w21 w22 w24"]
        found = rm.score("w30 w31", answers)
        assert found == pytest.approx(score_alone(rm, make_group("w30 w31", *answers)), rel=1e-4)
        assert len(set(found)) == 3 and all(type(score) is float for score in found)
        assert rm.score("w30 w31", answers[::-1]) == pytest.approx(found[::-1], rel=1e-4)

    def test_text_is_a_users_turn_and_an_answer(self, rm: RewardModel) -> None:
        text = rm.score("w30", ["w31", "w32"])
        assert rm.score(({"role": "user", "content": "w30"},), ["w31", "w32"]) == text
        assert rm.score("w30", [({"role": "assistant", "content": "w31"},), "w32"]) == text

    def test_the_same_completion_twice_has_one_score(self, rm: RewardModel) -> None:
        a, b, c = rm.score("w30", ["w31 w32", "w33", "w31 w32"])
        assert a == c != b

    def test_an_empty_completion_has_none(self, rm: RewardModel) -> None:
        found = rm.score("w30", ["w31", "", " \n"])
        assert found[0] is not None and found[1:] == [None, None]

    def test_no_completions_are_refused(self, rm: RewardModel) -> None:
        with pytest.raises(plaudit.DataError, match="at least one was needed"):
            rm.score("w30", [])

    def test_what_is_read_can_be_scored(self, rm: RewardModel, tmp_path: Path) -> None:
        groups = make_groups(5)
        plaudit.write(groups, tmp_path / "a.jsonl")
        found = list(rm.score_groups(plaudit.read(tmp_path / "a.jsonl")))
        assert_close(found, [score_alone(rm, group) for group in groups])


class TestReasons:
    def test_each_completion_without_a_score_has_a_reason(self, rm: RewardModel) -> None:
        long = " ".join(["w20"] * 80)
        settings = ScoreSettings(render=RenderSettings(max_length=64, overlength=Overlength.UNSCORED))
        scorer = Scorer(rm, settings)
        [scores] = scorer.score_window([make_group("w30", "w31", "", long)])
        assert scores.scores[0] is not None and scores.scores[1:] == (None, None)
        assert scores.unscored[:2] == (None, "empty completion")
        assert scores.unscored[2] == "too long: 85 tokens came, at most 64 fit"
        assert scores.dropped is None and scorer.tally.scored == 1
        assert scorer.renderer.counts.unscored == {"empty completion": 1, "too long": 1}

    def test_a_dropped_group_has_one_reason_for_all_and_costs_nothing(self, rm: RewardModel) -> None:
        settings = ScoreSettings(render=RenderSettings(max_length=64, overlength=Overlength.DROP))
        scorer = Scorer(rm, settings)
        [scores] = scorer.score_window([make_group("w30", "w31", " ".join(["w20"] * 80))])
        assert scores.scores == (None, None) and scores.dropped is not None
        assert scores.unscored == (scores.dropped, scores.dropped)
        assert "completion 1 is too long" in scores.dropped
        assert scorer.tally.unique_tokens == 0

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_score_that_is_no_number_is_none_and_says_so(
        self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch, value: float
    ) -> None:
        monkeypatch.setattr(rm, "forward", lambda pack: torch.full((len(pack.members_L),), value))
        scorer = Scorer(rm)
        [scores] = scorer.score_window([make_group("w30", "w31", "w32")])
        assert scores.scores == (None, None) and scores.unscored == (f"the model gave {value}",) * 2
        assert scorer.tally.scored == 0

    def test_a_completion_that_is_lost_on_the_way_is_our_fault(
        self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("plaudit.score.build_packs", lambda rows, settings: [])
        with pytest.raises(plaudit.InternalError, match=r"completion 0 came through .* without a score and without a"):
            rm.score("w30", ["w31"])

    @pytest.mark.parametrize("invariant", [False, True])
    def test_what_is_no_number_does_not_spread_to_the_completions_beside_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, invariant: bool
    ) -> None:
        monkeypatch.setattr("plaudit.score.INVARIANT_BUDGET", 512)
        rm = plaudit.load(folder, dtype="float32", device="cpu", invariant=invariant)
        with torch.no_grad():
            rm.hf.get_input_embeddings().weight[rm.tokenizer.convert_tokens_to_ids(POISON)] = math.nan
        rng = random.Random(2)
        prompt = words(rng, 30, 31)
        answers = [POISON, words(rng, 5, 9), f"{words(rng, 5, 9)} {POISON}", words(rng, 5, 9), ""]
        group, other = make_group(prompt, *answers), make_groups(1)[0]
        alone = [score_alone(rm, make_group(prompt, answers[k]))[0] for k in (1, 3)]
        assert all(math.isfinite(score) for score in alone)
        [scores, second] = Scorer(rm, ScoreSettings(invariant=invariant)).score_window([group, other])
        assert scores.unscored == ("the model gave nan", None, "the model gave nan", None, "empty completion")
        assert [scores.scores[k] for k in (1, 3)] == pytest.approx(alone, rel=1e-4)
        assert_close([second], [score_alone(rm, other)])


class TestMemory:
    def fail_above(self, limit: int, rm: RewardModel, error: Callable[[], Exception]) -> Any:
        """A forward that finds no memory for packs of more than `limit` tokens."""
        forward = type(rm).forward

        def failing(pack: Pack) -> torch.Tensor:
            if pack.num_unique > limit:
                raise error()
            return forward(rm, pack)

        return failing

    ERRORS: tuple[Callable[[], Exception], ...] = (
        MemoryError,
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
    )

    @pytest.mark.parametrize("error", ERRORS, ids=["python", "cuda", "cpu"])
    def test_a_pack_that_does_not_fit_is_cut_until_it_does(
        self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
    ) -> None:
        groups = make_groups(20)
        scorer = Scorer(rm, ScoreSettings(budget=2048, window=10))
        monkeypatch.setattr(rm, "forward", self.fail_above(300, rm, error))
        found = list(scorer.score_groups(groups))
        monkeypatch.undo()
        assert_close(found, [score_alone(rm, group) for group in groups])
        assert scorer.budget == 256 and scorer.halvings == 3
        assert scorer.notes == ["memory ran out 3 times: packs were cut down to 256 tokens"]

    def test_running_out_once_is_said_as_once(self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
        scorer = Scorer(rm, ScoreSettings(budget=512))
        monkeypatch.setattr(rm, "forward", self.fail_above(300, rm, MemoryError))
        scorer.score_window(make_groups(20))
        assert scorer.notes == ["memory ran out once: packs were cut down to 256 tokens"]

    def test_a_completion_that_never_fits_is_a_sentence(self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
        scorer = Scorer(rm, ScoreSettings(budget=4 * SMALLEST_BUDGET))
        monkeypatch.setattr(rm, "forward", self.fail_above(100, rm, MemoryError))
        with pytest.raises(InputError, match=r"memory ran out at 2\d\d tokens a pack, .* free some memory, or lower"):
            scorer.score_window([make_group("w20", " ".join(["w21"] * 200))])
        assert scorer.budget == SMALLEST_BUDGET

    def test_invariant_packs_are_not_cut(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rm = plaudit.load(folder, dtype="float32", device="cpu", invariant=True)
        monkeypatch.setattr(rm, "forward", self.fail_above(10, rm, MemoryError))
        with pytest.raises(InputError, match="memory ran out at 1,024 tokens a pack, and invariant scores cannot"):
            rm.score("w20 " * 20, ["w21"])

    def test_on_a_gpu_the_cache_is_given_back_before_the_next_try(
        self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []

        def forward(pack: Pack) -> torch.Tensor:
            calls.append("forward")
            if len(calls) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.zeros(len(pack.members_L))

        scorer = Scorer(rm, ScoreSettings(budget=512))
        monkeypatch.setattr(rm, "forward", forward)
        monkeypatch.setattr(rm, "prepare", lambda pack: pack)
        monkeypatch.setattr(type(rm), "device", property(lambda self: torch.device("cuda")))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
        scorer.score_window(make_groups(1))
        assert calls == ["forward", "empty", "forward"]

    def test_another_failure_is_not_taken_for_it(self, rm: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
        scorer = Scorer(rm)
        monkeypatch.setattr(rm, "forward", self.fail_above(0, rm, lambda: RuntimeError("shapes do not match")))
        with pytest.raises(RuntimeError, match="shapes do not match"):
            scorer.score_window(make_groups(1))
        assert scorer.halvings == 0

    def test_an_endless_stream_is_read_three_windows_ahead_at_most(self, rm: RewardModel) -> None:
        num_read, group = 0, make_groups(1)[0]

        def endless() -> Iterator[Group]:
            nonlocal num_read
            while True:
                num_read += 1
                yield group

        stream = rm.score_groups(endless(), settings=ScoreSettings(window=8))
        for num_taken in range(1, 100):
            next(stream)
            assert num_read <= (num_taken - 1) // 8 * 8 + 4 * 8
        stream.close()
        assert len(list(islice(rm.score_groups(endless(), settings=ScoreSettings(window=8)), 20))) == 20

    def test_leaving_early_leaves_no_thread_behind(self, rm: RewardModel) -> None:
        stream = rm.score_groups(make_groups(50), settings=ScoreSettings(window=2))
        next(stream)
        assert any(thread.name.startswith("render") for thread in threading.enumerate())
        stream.close()
        assert not any(thread.name.startswith("render") for thread in threading.enumerate())

    def test_a_source_that_fails_does_so_after_what_came_before(self, rm: RewardModel) -> None:
        def broken() -> Iterator[Group]:
            yield from make_groups(10)
            raise OSError("the disk went away")

        found = []
        with pytest.raises(OSError, match="the disk went away"):
            for scores in rm.score_groups(broken(), settings=ScoreSettings(window=4)):
                found.append(scores)
        assert len(found) == 8
        assert not any(thread.name.startswith("render") for thread in threading.enumerate())


class TestSettings:
    @pytest.mark.parametrize("name", ["budget", "window"])
    @pytest.mark.parametrize("value", [0, -5])
    def test_numbers_below_one_are_refused(self, name: str, value: int) -> None:
        with pytest.raises(ConfigError, match=f"{name} {value} came, at least 1 was needed; leave it out"):
            ScoreSettings(**{name: value})

    def test_a_budget_for_invariant_scores_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="budget 512 came with invariant scores, whose packs have one fixed size"):
            ScoreSettings(budget=512, invariant=True)

    def test_invariance_has_to_be_asked_for_when_loading(self, rm: RewardModel) -> None:
        with pytest.raises(ConfigError, match="load it with invariant=True"):
            rm.score("w20", ["w21"], settings=ScoreSettings(invariant=True))

    def test_a_limit_beyond_the_models_is_refused(self, rm: RewardModel) -> None:
        with pytest.raises(ConfigError, match="max_length 513 came, but the model reads at most 512 tokens"):
            Scorer(rm, ScoreSettings(render=RenderSettings(max_length=513)))

    def test_a_new_head_is_refused(self, tmp_path: Path) -> None:
        new = plaudit.load(save_model(tmp_path / "lm", kind="lm"), device="cpu", new_head=True)
        for ask in (lambda: new.score("w20", ["w21"]), lambda: new.score_groups(make_groups(1))):
            with pytest.raises(ModelError, match=r"its reward head is new and untrained.*train it first"):
                ask()

    def test_what_is_not_said_is_found(self, rm: RewardModel, folder: Path) -> None:
        scorer = Scorer(rm)
        assert scorer.window == 128 and scorer.budget >= 512 and not scorer.invariant
        invariant = Scorer(plaudit.load(folder, dtype="float32", device="cpu", invariant=True))
        assert invariant.invariant and invariant.budget == 1024

    def test_a_small_budget_holds_whatever_comes(self, rm: RewardModel) -> None:
        groups = make_groups(6)
        assert_close(
            list(rm.score_groups(groups, settings=ScoreSettings(budget=1))),
            [score_alone(rm, group) for group in groups],
        )


Pool = dict[str, list[str]]
Bits = dict[tuple[str, str], set[str]]


def random_batching(rng: random.Random, pool: Pool, most: int) -> list[Group]:
    """Some completions of some prompts, in any order, in Groups of any size, some of them twice."""
    chosen = [(p, a) for p, answers in pool.items() for a in answers]
    chosen = rng.sample(chosen, rng.randrange(1, most + 1)) + rng.choices(chosen, k=rng.randrange(2))
    rng.shuffle(chosen)
    groups: list[tuple[str, list[str]]] = []
    for prompt, answer in chosen:
        open_groups = [answers for p, answers in groups if p == prompt]
        if open_groups and rng.random() < 0.7:
            rng.choice(open_groups).append(answer)
        else:
            groups.append((prompt, [answer]))
    return [make_group(prompt, *answers) for prompt, answers in groups]


def collect_bits(rm: RewardModel, pool: Pool, *, num_batchings: int, most: int) -> Bits:
    """The bit patterns that each completion's score had over random batchings."""
    rng, bits = random.Random(num_batchings), defaultdict[tuple[str, str], set[str]](set)
    scorers = [
        Scorer(rm, ScoreSettings(invariant=True, window=window, share=share))
        for window, share in ((1, True), (3, True), (100, True), (100, True), (100, False))
    ]
    for _ in range(num_batchings):
        groups = random_batching(rng, pool, most)
        for group, scores in zip(groups, rng.choice(scorers).score_groups(groups), strict=True):
            for completion, score in zip(group.completions, scores.scores, strict=True):
                assert score is not None
                bits[str(group.prompt), completion.text].add(score.hex())
    return bits


def check_bits(bits: Bits, pool: Pool) -> None:
    assert bits.keys() == {(p, a) for p, answers in pool.items() for a in answers}, "some were never scored"
    several = {pair: found for pair, found in bits.items() if len(found) > 1}
    assert several == {}, f"{len(several)} of {len(bits)} completions have more than one bit pattern"
    assert len({score for found in bits.values() for score in found}) > 0.9 * len(bits), "one score for all"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_three_hundred_batchings_give_one_bit_pattern_each(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small packs, so that completions of this size meet several of them, and some need packs of twice and four times.
    monkeypatch.setattr("plaudit.score.INVARIANT_BUDGET", 192)
    folder = save_model(tmp_path / "tiny", max_position_embeddings=1024)
    rm = plaudit.load(folder, dtype=dtype, device="cpu", invariant=True)
    rng = random.Random(5)
    pool = {words(rng, 1, 70): [words(rng, 1, 60) for _ in range(4)] for _ in range(6)}
    system = words(rng, 90, 91)  # several prompts that begin alike, and completions too long for the smallest pack
    pool |= {
        f"{system} {words(rng, 1, 9)}": [words(rng, 1, 40), words(rng, 90, 120), words(rng, 300, 320)] for _ in range(2)
    }
    check_bits(collect_bits(rm, pool, num_batchings=300, most=9), pool)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_forty_batchings_of_a_real_model_give_one_bit_pattern_each(
    smollm2: Path, data_folder: Path, dtype: str
) -> None:
    rm = plaudit.load(smollm2, dtype=dtype, device="cpu", new_head=True, invariant=True)
    rm.is_new = False  # noise has to be as invariant as a trained head's scores
    pool: Pool = {}
    for group in islice(plaudit.read(data_folder / "train_hh.jsonl.gz"), 8):
        prompt = "\n".join(str(turn["content"]) for turn in group.prompt if not isinstance(turn, str))
        pool[prompt] = [completion.text for completion in group.completions]
    check_bits(collect_bits(rm, pool, num_batchings=40, most=10), pool)
