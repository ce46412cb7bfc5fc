"""score.py: the host works while the device does. Events show it, not clocks: a busy machine changes nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import plaudit
from plaudit import score as scoring
from plaudit.group import Group
from plaudit.pack import Pack
from plaudit.score import RewardModel, Scorer, Scores, ScoreSettings
from test_threads import make_groups
from tiny import save_model

PATIENCE = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("overlap") / "tiny")


@pytest.fixture(params=["blocks", "aligned"])
def rm(request: pytest.FixtureRequest, folder: Path) -> RewardModel:
    return plaudit.load(folder, dtype="float32", device="cpu", backend=request.param)


class Late(scoring.LateScores):
    """Scores of a device that works on its own: `log` says when they were waited for."""

    def __init__(self, scores_L: torch.Tensor, number: int, log: list[str]) -> None:
        self.scores_L, self.number, self.log = scores_L, number, log

    def __call__(self) -> list[float]:
        self.log.append(f"fetch {self.number}")
        found: list[float] = self.scores_L.tolist()
        return found


@pytest.fixture
def log(rm: RewardModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened to packs, in order, on a device that works on its own."""
    events: list[str] = []
    forward = type(rm).forward

    def launch(pack: Pack) -> torch.Tensor:
        events.append(f"launch {sum(event.startswith('launch') for event in events)}")
        return forward(rm, pack)

    def start_fetch(scores_L: torch.Tensor) -> Late:
        return Late(scores_L, int(events[-1].split()[1]), events)

    monkeypatch.setattr(rm, "forward", launch)
    monkeypatch.setattr(scoring, "start_fetch", start_fetch)
    return events


def settings(rm: RewardModel, window: int = 1000) -> ScoreSettings:
    return ScoreSettings(window=window) if rm.is_invariant else ScoreSettings(window=window, budget=200)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "INVARIANT_BUDGET", 192)


def late_order(count: int) -> list[str]:
    """Each forward is launched before the scores of the one before it are waited for."""
    order = ["launch 0"]
    for n in range(1, count):
        order += [f"launch {n}", f"fetch {n - 1}"]
    return [*order, f"fetch {count - 1}"]


def test_the_next_forward_is_launched_before_scores_are_waited_for(rm: RewardModel, log: list[str]) -> None:
    Scorer(rm, settings(rm)).score_window(make_groups(30))
    count = len(log) // 2
    assert count > 4
    assert log == late_order(count)


def test_so_it_is_from_one_window_to_the_next(rm: RewardModel, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Semaphore(0)
    open_window, launch = Scorer.open_window, rm.forward
    groups = make_groups(6)

    def open_and_say(scorer: Scorer, *args: Any, **kwargs: Any) -> Any:
        window = open_window(scorer, *args, **kwargs)
        opened.release()
        return window

    def launch_with_the_next_there(pack: Pack) -> torch.Tensor:
        # Read, rendered and cut while this forward runs, on another thread: else this would wait for ever.
        if sum(event.startswith("launch") for event in log) < len(groups) - 1:
            assert opened.acquire(timeout=PATIENCE)
        return launch(pack)

    # Its future is done a moment after its work.
    monkeypatch.setattr(scoring, "_has_succeeded", lambda future: future.exception(PATIENCE) is None)
    monkeypatch.setattr(Scorer, "open_window", open_and_say)
    monkeypatch.setattr(rm, "forward", launch_with_the_next_there)
    opened_before = threading.Thread(target=lambda: opened.acquire(timeout=PATIENCE))  # the first window itself
    opened_before.start()
    small = [Group(prompt=group.prompt, completions=group.completions[:1]) for group in groups]
    assert len(list(Scorer(rm, settings(rm, window=1)).score_groups(small))) == len(groups)
    opened_before.join()
    assert log == late_order(len(groups))


def test_packs_are_prepared_on_another_thread_while_a_forward_runs(
    rm: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = threading.Semaphore(0)
    prepare, forward = type(rm).prepare, type(rm).forward
    threads: list[str] = []
    packs = len(Scorer(rm, settings(rm)).open_window(Scorer(rm).render(make_groups(30))).packs)
    num_run = 0

    def prepare_and_say(pack: Pack) -> Pack:
        done = prepare(rm, pack)
        if done is not pack:
            threads.append(threading.current_thread().name)
            prepared.release()
        return done

    def run(pack: Pack) -> torch.Tensor:
        nonlocal num_run
        num_run += 1
        # One release for this pack and one for the next, which is prepared while this forward is under way.
        assert prepared.acquire(timeout=PATIENCE)
        if num_run < packs:
            assert prepared.acquire(timeout=PATIENCE)
            prepared.release()
        return forward(rm, pack)

    monkeypatch.setattr(rm, "prepare", prepare_and_say)
    monkeypatch.setattr(rm, "forward", run)
    Scorer(rm, settings(rm)).score_window(make_groups(30))
    assert len(threads) == num_run == packs > 4
    assert not threads[0].startswith("prepare"), "the first pack is needed at once"
    assert all(name.startswith("prepare") for name in threads[1:])


def test_a_finished_window_does_not_wait_for_groups_that_are_not_there_yet(rm: RewardModel, log: list[str]) -> None:
    """As with a policy that samples its next answers only when it has the scores of the last ones."""
    more = threading.Event()

    def source() -> Iterator[Group]:
        yield from make_groups(4)
        assert more.wait(PATIENCE)
        yield from make_groups(2, seed=1)

    stream = Scorer(rm, settings(rm, window=4)).score_groups(source())
    for _ in range(4):
        next(stream)
    more.set()
    assert len(list(stream)) == 2


class TestExactness:
    def score(self, rm: RewardModel, groups: Sequence[Group]) -> tuple[list[Scores], list[float], Scorer]:
        scorer, shares = Scorer(rm, settings(rm)), list[float]()
        found = scorer.score_rendered(scorer.render(groups), shares.append)
        return found, shares, scorer

    def compare(self, rm: RewardModel, found: list[Scores], expected: list[Scores]) -> None:
        for one, other in zip(found, expected, strict=True):
            assert one.unscored == other.unscored
            for score, wanted in zip(one.scores, other.scores, strict=True):
                assert (
                    score == wanted
                    if rm.is_invariant or wanted is None
                    else score == pytest.approx(wanted, rel=1e-5, abs=5e-6)
                )

    def test_late_scores_are_the_scores(self, rm: RewardModel, request: pytest.FixtureRequest) -> None:
        groups = make_groups(30)
        expected, shares, scorer = self.score(rm, groups)
        log = request.getfixturevalue("log")
        found, late_shares, late = self.score(rm, groups)
        assert log[:3] == ["launch 0", "launch 1", "fetch 0"]
        self.compare(rm, found, expected)
        assert late_shares == shares and shares[-1] == 1.0
        assert (late.tally.unique_tokens, late.tally.scored) == (scorer.tally.unique_tokens, scorer.tally.scored)

    def test_what_is_not_finite_is_scored_alone(self, rm: RewardModel, request: pytest.FixtureRequest) -> None:
        groups = make_groups(30)
        with torch.no_grad():
            rm.hf.get_input_embeddings().weight[50] = math.nan
        expected, shares, _ = self.score(rm, groups)
        request.getfixturevalue("log")
        found, late_shares, _ = self.score(rm, groups)
        self.compare(rm, found, expected)
        reasons = {reason for one in found for reason in one.unscored}
        assert reasons == {None, "the model gave nan"} and late_shares == shares

    def test_memory_that_runs_out_with_a_forward_under_way(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        rm = plaudit.load(folder, dtype="float32", device="cpu")
        groups = make_groups(30)
        expected, _, _ = self.score(rm, groups)
        forward, events = type(rm).forward, list[str]()

        def failing(pack: Pack) -> torch.Tensor:
            events.append("launch")
            if len(events) > 4 and pack.num_unique > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(rm, pack)

        monkeypatch.setattr(rm, "forward", failing)
        monkeypatch.setattr(scoring, "start_fetch", lambda scores_L: Late(scores_L, 0, []))
        found, shares, scorer = self.score(rm, groups)
        self.compare(rm, found, expected)
        assert (scorer.budget, scorer.halvings) == (100, 1)
        assert shares[-1] == 1.0 and shares == sorted(shares)

    def test_a_plan_that_finds_no_memory_is_a_pack_that_does_not_fit(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rm = plaudit.load(folder, dtype="float32", device="cpu")
        groups = make_groups(30)
        expected, _, _ = self.score(rm, groups)
        prepare: Callable[..., Any] = type(rm).prepare

        def failing(pack: Pack) -> Any:
            if pack.num_unique > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return prepare(rm, pack)

        monkeypatch.setattr(rm, "prepare", failing)
        found, _, scorer = self.score(rm, groups)
        self.compare(rm, found, expected)
        assert (scorer.budget, scorer.halvings) == (100, 1)
