"""One model, one Scorer, one tokenizer, many threads: every score equals the one that a single thread gets."""

from __future__ import annotations

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
from plaudit.encode import Encoder
from plaudit.group import Completion, Group
from plaudit.lora import LoraSettings, attach_lora, merging
from plaudit.model import PLAIN, RewardNet
from plaudit.pack import PackSettings, build_packs
from plaudit.render import Overlength, Renderer, RenderSettings
from plaudit.score import RewardModel, Scorer, Scores, ScoreSettings
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
