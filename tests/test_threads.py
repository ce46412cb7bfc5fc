"""One model, one Scorer, one tokenizer, many threads: every score equals the one that a single thread gets."""

from __future__ import annotations

import copy
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plaudit
from plaudit import encode
from plaudit.encode import Encoder, copy_backend
from plaudit.group import Completion, Group
from plaudit.locks import ForwardLock
from plaudit.lora import LoraSettings, attach_lora, merging
from plaudit.model import PLAIN, RewardNet
from plaudit.pack import PackSettings, build_packs
from plaudit.render import Renderer
from plaudit.score import RewardModel, Scorer, ScoreSettings
from tiny import make_tokenizer, ragged, save_model

THREADS = 8


@pytest.fixture(autouse=True)
def hurried() -> Iterator[None]:
    """Threads take turns every 50 microseconds, a hundred times as often as usual, so that they meet everywhere."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("threads") / "tiny")


@pytest.fixture(scope="module", params=["blocks", "aligned", PLAIN])
def rm(request: pytest.FixtureRequest, folder: Path) -> RewardModel:
    return plaudit.load(folder, dtype="float32", device="cpu", backend=request.param)


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(f"w{rng.randrange(14, 100)}" for _ in range(rng.randrange(low, high)))


def make_groups(n: int, seed: int = 0) -> list[Group]:
    """Groups of one to eight completions, long and short."""
    rng = random.Random(seed)
    return [
        Group(
            prompt=words(rng, 1, 40),
            completions=tuple(Completion(content=words(rng, 1, 20)) for _ in range(rng.choice((1, 2, 2, 3, 8)))),
        )
        for _ in range(n)
    ]


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """What the jobs return, each run on a thread of its own; all of them start at the same moment."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(run, job) for job in jobs]]


def assert_same(rm: RewardNet, found: Sequence[float | None], expected: Sequence[float | None]) -> None:
    """The same bits where every shape is a function of the completion; else to the order in which a matmul adds."""
    if rm.is_invariant:
        assert list(found) == list(expected)
    else:
        assert list(found) == pytest.approx(list(expected), rel=1e-5, abs=1e-6)


def test_eight_threads_get_the_scores_of_one(rm: RewardModel) -> None:
    groups = make_groups(60)
    shared = Scorer(rm)

    def by_model(group: Group) -> Sequence[float | None]:
        return rm.score(group.prompt, [c.content for c in group.completions])

    def by_stream(group: Group) -> Sequence[float | None]:
        [scores] = rm.score_groups([group])
        return scores.scores

    def by_shared_scorer(group: Group) -> Sequence[float | None]:
        [scores] = shared.score_window([group])
        return scores.scores

    expected = [by_model(group) for group in groups]
    calls = {"blocks": 125, "aligned": 125, PLAIN: 12}[rm.backend]  # of each thread: 2,096 in all, over the back ends

    def work(seed: int) -> Callable[[], list[tuple[int, Sequence[float | None]]]]:
        rng = random.Random(seed)
        plan = [(rng.randrange(len(groups)), rng.choice((by_model, by_stream, by_shared_scorer))) for _ in range(calls)]
        return lambda: [(n, score(groups[n])) for n, score in plan]

    found = [one for results in in_threads(*map(work, range(THREADS))) for one in results]
    assert len(found) == THREADS * calls
    for n, scores in found:
        assert_same(rm, scores, expected[n])


def test_reference_runs_and_self_tests_beside_scoring(rm: RewardModel) -> None:
    """They change how all layers compute attention, for a while."""
    groups = make_groups(12, seed=1)
    expected = [rm.score(group.prompt, [c.content for c in group.completions]) for group in groups]
    row = torch.from_numpy(ragged(1)[0].astype(np.int64))[None]
    with torch.inference_mode(), rm.plain_attention() as hf:
        alone = float(hf(input_ids=row).logits[0, 0])

    def refer() -> None:
        for _ in range(25):
            with torch.inference_mode(), rm.plain_attention() as hf:
                assert float(hf(input_ids=row).logits[0, 0]) == pytest.approx(alone, rel=1e-5)
            assert rm.find_fault("blocks") is None

    def score() -> None:
        for _ in range(3):
            for group, scores in zip(groups, expected, strict=True):
                assert_same(rm, rm.score(group.prompt, [c.content for c in group.completions]), scores)

    before = rm.backend
    in_threads(refer, *[score] * 3)
    assert rm.backend == before


def test_gradients_beside_scoring(rm: RewardModel) -> None:
    if rm.backend == "aligned":
        pytest.skip("invariant attention is for scoring")
    packs = [build_packs([ragged(k, seed=k)], PackSettings(budget=20_000))[0] for k in (1, 5, 9)]

    def gradient(number: int) -> torch.Tensor:
        [found] = torch.autograd.grad(rm(packs[number]).sum(), [rm.backbone.layers[0].mlp.up_proj.weight])
        return found

    groups = make_groups(8, seed=2)
    expected = [rm.score(group.prompt, [c.content for c in group.completions]) for group in groups]
    gradients = [gradient(n) for n in range(len(packs))]

    def learn() -> None:
        for n in [0, 1, 2] * 8:
            torch.testing.assert_close(gradient(n), gradients[n], rtol=1e-4, atol=1e-5)

    def score() -> None:
        for group, scores in zip(groups * 4, expected * 4, strict=True):
            assert_same(rm, rm.score(group.prompt, [c.content for c in group.completions]), scores)

    in_threads(learn, learn, score, score)


def test_features_beside_scoring(rm: RewardModel) -> None:
    """On the plain path a hook on the head sees what every thread gives to it."""
    rows = [ragged(1, seed=n) for n in range(6)]
    packs = [build_packs([row], PackSettings(budget=20_000))[0] for row in rows]

    def read(n: int) -> torch.Tensor:
        with torch.inference_mode():
            return rm.read_features(packs[n])

    expected = [read(n) for n in range(len(packs))]

    def work() -> None:
        for n in list(range(len(packs))) * 10:
            torch.testing.assert_close(read(n), expected[n], rtol=1e-5, atol=1e-5)

    in_threads(*[work] * 4)


def test_merged_adapters_beside_scoring(folder: Path) -> None:
    rm = plaudit.load(folder, dtype="float32", device="cpu")
    attach_lora(rm, LoraSettings(rank=4))
    with torch.no_grad():
        for name, weight in rm.hf.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    groups = make_groups(6, seed=3)
    expected = [rm.score(group.prompt, [c.content for c in group.completions]) for group in groups]

    def merge() -> None:
        for _ in range(6):
            # In another precision, which no forward of another thread may meet.
            with merging(rm, dtype=torch.float64):
                assert rm.dtype == torch.float64

    def score() -> None:
        for group, scores in zip(groups * 3, expected * 3, strict=True):
            assert_same(rm, rm.score(group.prompt, [c.content for c in group.completions]), scores)

    in_threads(merge, *[score] * 3)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_position_embeddings_that_a_forward_rewrites(kind: str, tmp_path: Path) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
    rope |= {"factor": 4.0} if kind == "dynamic" else {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rm = plaudit.load(save_model(tmp_path / kind, rope_parameters=rope), dtype="float32", device="cpu")
    assert rm.backend == "blocks"
    rng = random.Random(4)
    short, long = words(rng, 20, 21), words(rng, 200, 201)
    expected = {prompt: rm.score(prompt, ["w20 w21", "w22"]) for prompt in (long, short)}

    def work(prompt: str) -> Callable[[], None]:
        def score() -> None:
            for _ in range(60):
                assert_same(rm, rm.score(prompt, ["w20 w21", "w22"]), expected[prompt])

        return score

    in_threads(*map(work, (short, long) * 2))


class TestScorer:
    def test_counts_of_all_threads_are_summed(self, folder: Path) -> None:
        rm = plaudit.load(folder, dtype="float32", device="cpu")
        groups = make_groups(30, seed=5)
        alone, shared = (Scorer(rm, ScoreSettings(budget=200, window=4)) for _ in range(2))
        expected = list(alone.score_groups(groups))
        found = in_threads(*[lambda: list(shared.score_groups(groups))] * 4)
        for scores in found:
            for one, other in zip(scores, expected, strict=True):
                assert_same(rm, one.scores, other.scores)
        for name in ("groups", "completions", "scored", "unique_tokens", "total_tokens"):
            assert getattr(shared.tally, name) == 4 * getattr(alone.tally, name)
        assert shared.renderer.counts.chat_groups == 4 * len(groups)

    def test_a_failure_of_two_threads_at_one_budget_halves_it_once(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rm = plaudit.load(folder, dtype="float32", device="cpu")
        group = Group(prompt="w20 " * 60, completions=tuple(Completion(content=f"w{n} " * 40) for n in range(14, 24)))
        [expected] = Scorer(rm).score_window([group])
        forward, both = type(rm).forward, threading.Barrier(2)

        def failing(pack: Any) -> torch.Tensor:
            if pack.num_unique > 300:
                both.wait(60)  # both have cut their packs for the same budget
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(rm, pack)

        monkeypatch.setattr(rm, "forward", failing)
        scorer = Scorer(rm, ScoreSettings(budget=512))
        for [scores] in in_threads(*[lambda: scorer.score_window([group])] * 2):
            assert_same(rm, scores.scores, expected.scores)
        assert (scorer.budget, scorer.halvings) == (256, 2)


class TestTokenizer:
    def test_padding_by_another_thread_leaves_ids_alone(self) -> None:
        tokenizer = make_tokenizer()
        renderer = Renderer(tokenizer)
        groups = make_groups(20, seed=6)
        expected = [[ids.tolist() for ids in one.ids if ids is not None] for one in renderer.render(groups)]

        def pad() -> None:
            for _ in range(100):
                tokenizer(["w20", "w21 w22 w23"], padding="max_length", max_length=3, truncation=True)

        def render() -> None:
            # One for each thread, as each call of `RewardModel.score` has.
            own = Renderer(tokenizer)
            for _ in range(20):
                found = [[ids.tolist() for ids in one.ids if ids is not None] for one in own.render(groups)]
                assert found == expected

        in_threads(pad, *[render] * 4)
        assert tokenizer.backend_tokenizer.truncation is not None, "what others set is left as it is"

    def test_a_tokenizer_of_its_own_kind_is_used_by_one_thread_at_a_time(self) -> None:
        inside = threading.Lock()

        class Slow(type(make_tokenizer())):  # type: ignore[misc]
            """Prepares its text first, so that its Rust part alone would give other ids."""

            def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
                assert inside.acquire(blocking=False), "two threads are in the tokenizer"
                try:
                    threading.Event().wait(0.001)
                    return super()._encode_plus([one.lower() for one in text], *args, **kwargs)
                finally:
                    inside.release()

        tokenizer = Slow(tokenizer_object=make_tokenizer().backend_tokenizer)

        def work() -> None:
            for _ in range(10):
                [ids] = Encoder(tokenizer).encode_texts(["W20 W21"])
                assert ids.tolist() == [20, 21]

        in_threads(*[work] * 4)

    def test_a_copy_has_the_ids_of_the_original(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tokenizer = make_tokenizer()
        tokenizer.add_tokens(["w20 w21", "new one"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
        texts = ["w20 w21 w22 new one <new> w30", "<s> w99</s>", ""]
        ours = copy_backend(tokenizer)
        assert [one.ids for one in ours.encode_batch_fast(texts)] == tokenizer(texts)["input_ids"]
        # Where ids come out otherwise, everything is copied; and no copy pads or truncates.
        monkeypatch.setattr(encode, "_describe_added", lambda tokenizer: {id(tokenizer): ()})
        expected = tokenizer(texts)["input_ids"]
        tokenizer.backend_tokenizer.enable_truncation(3)
        tokenizer.backend_tokenizer.enable_padding(length=9)
        assert [one.ids for one in copy_backend(tokenizer).encode_batch_fast(texts)] == expected


class TestLock:
    def test_a_change_waits_for_forwards_and_goes_before_later_ones(self) -> None:
        lock, order = ForwardLock(), []
        inside, leave = threading.Event(), threading.Event()

        def forward() -> None:
            with lock.shared():
                inside.set()
                assert leave.wait(60)
                with lock.shared():  # it never waits for the change that waits for it
                    order.append("forward")

        def change() -> None:
            assert inside.wait(60)
            with lock.exclusive(), lock.exclusive(), lock.shared():
                order.append("change")

        def later() -> None:
            while not lock._num_waiting:
                threading.Event().wait(0.001)
            leave.set()
            with lock.shared():
                order.append("later")

        in_threads(forward, change, later)
        assert order == ["forward", "change", "later"]

    def test_a_forward_cannot_change_its_own_model(self) -> None:
        lock = ForwardLock()
        with lock.shared(), pytest.raises(plaudit.InternalError, match="inside of its own forward"), lock.exclusive():
            pass

    def test_a_copied_model_has_its_own(self, folder: Path) -> None:
        rm = plaudit.load(folder, dtype="float32", device="cpu")
        assert copy.deepcopy(rm).lock is not rm.lock
