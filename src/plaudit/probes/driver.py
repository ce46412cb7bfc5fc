"""A scorer and a few prompts in, what every probe found out.

Last file of `probes`. An answer and all of its edits are one Group, so that what they share, the prompt above all, is
computed once. The scorer is anything with `score_groups`. Invariant: the same data, seed and scorer give the same
report, whatever the order of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from plaudit.errors import ConfigError, DataError
from plaudit.group import Group
from plaudit.keys import digest_texts, draw_lot
from plaudit.probes.probe import Expects, Probe
from plaudit.probes.result import Example, ProbeReport, ProbeResult
from plaudit.probes.sample import Sample, draw_sample
from plaudit.probes.table import PROBES, find_probes
from plaudit.probes.trial import Trial, build_staged, build_trials
from plaudit.probes.verdict import estimate_mean, estimate_rate, find_family_interval, find_fewest, judge_shift

NUM_EXAMPLES = 3
FEWEST_RIVALED = 20
"""Prompts with two answers that are needed for the spread within prompts to be known."""


class GroupScorer(Protocol):
    """What is probed: a `RewardModel`, a `Scorer`, or anything else that scores a stream of Groups in order."""

    def score_groups(self, groups: Iterable[Group], /) -> Iterator[Any]:
        """Something with `scores` for each Group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeSettings:
    """How many prompts are probed (`limit`), with how many other answers each (`rivals`), and which probes.

    Those called `only`, or all of the table; and after them `more`, the caller's own.
    """

    limit: int = 200
    rivals: int = 2
    only: tuple[str, ...] = ()
    more: tuple[Probe, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit < 1 or self.rivals < 0:
            raise ConfigError(f"limit {self.limit} and rivals {self.rivals} came, at least 1 and 0 were needed")
        names = [*PROBES, *(probe.name for probe in self.more)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ConfigError(
                f"a probe of your own is called {twice!r}, and there is one of that name; name it otherwise"
            )


Watch = Callable[[int, int], None]
"""Called after each Group with how many are done, and of how many."""


def measure_probes(
    score: GroupScorer, groups: Iterable[Group], *, settings: ProbeSettings | None = None, watch: Watch | None = None
) -> ProbeReport:
    """Probe a scorer on a sample of these Groups. No labels are needed.

    Edits make answers longer: give a Scorer that leaves what is too long unscored (`Overlength.UNSCORED`).
    """
    settings = settings or ProbeSettings()
    return measure_sample(score, draw_prompts(groups, settings), settings=settings, watch=watch)


def draw_prompts(groups: Iterable[Group], settings: ProbeSettings) -> Sample:
    """The prompts that would be probed; raises what is wrong with the names of probes, or with the data."""
    find_probes(settings.only)
    sample = draw_sample(groups, limit=settings.limit, rivals=settings.rivals, seed=settings.seed)
    if not sample.rows:
        raise DataError(
            f"{sample.num_read:,} groups came, none of them with a prompt and an answer in text, which probes edit; "
            "check --format and the names of the columns"
        )
    return sample


def measure_sample(
    score: GroupScorer, sample: Sample, *, settings: ProbeSettings, watch: Watch | None = None
) -> ProbeReport:
    """Probe a scorer on prompts that were drawn before."""
    probes = [*find_probes(settings.only), *settings.more]
    main = build_trials(sample.rows, probes, settings.seed)
    staged = build_staged(probes, settings.limit)
    _score_trials(score, [*main, *staged], watch)
    spread, spread_of = _find_spread(main)
    results = [
        _sum_up(probe, staged if probe.staged else main, spread, (settings.seed, len(probes))) for probe in probes
    ]
    return ProbeReport(
        results=tuple(results),
        spread=spread,
        spread_of=spread_of,
        num_prompts=len(sample.rows),
        num_read=sample.num_read,
        notes=tuple(_find_notes(sample, spread, find_fewest(len(probes)))),
    )


def _score_trials(score: GroupScorer, trials: Sequence[Trial], watch: Watch | None) -> None:
    flat = [one for trial in trials for one in trial.all_trials()]
    for done, (trial, scored) in enumerate(zip(flat, score.score_groups(t.group for t in flat), strict=True), 1):
        trial.scores = tuple(scored.scores)
        if watch:
            watch(done, len(flat))


def _find_spread(trials: Sequence[Trial]) -> tuple[float, str]:
    """How far apart the data's own answers are, and whether that is within prompts or across them."""
    own = [[s for s in trial.scores[: trial.num_own] if s is not None] for trial in trials]
    rivaled = [np.array(scores) for scores in own if len(scores) > 1]
    if len(rivaled) >= FEWEST_RIVALED:
        squares = sum(float(((scores - scores.mean()) ** 2).sum()) for scores in rivaled)
        return float(np.sqrt(squares / sum(len(scores) - 1 for scores in rivaled))), "within prompts"
    everything = [score for scores in own for score in scores]
    return float(np.std(everything, ddof=1)) if len(everything) > 1 else 0.0, "across prompts"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Change:
    """What one edit did on one prompt: its example, and the share of orders it turned (None: nothing to compare)."""

    example: Example
    flip: float | None

    @property
    def shift(self) -> float:
        return self.example.score_after - self.example.score_before


def _sum_up(probe: Probe, trials: Sequence[Trial], spread: float, lots: tuple[int, int]) -> ProbeResult:
    """A probe's figures over its trials; `lots` are the seed, and how many probes share the verdicts' certainty."""
    seed, num_probes = lots
    applied = [trial for trial in trials if probe.name in trial.edits or probe.name in trial.recasts]
    changes = [change for trial in applied if (change := _read_change(probe, trial)) is not None]
    own_seed = draw_lot(seed, "probes", digest_texts([probe.name]))
    shift_N = np.array([change.shift for change in changes]) / (spread or np.nan)
    flip_N = np.array([change.flip for change in changes if change.flip is not None])
    is_known = spread > 0 and len(changes) > 0
    interval = find_family_interval(shift_N, num_probes) if is_known else None
    return ProbeResult(
        probe=probe,
        num_prompts=len(changes),
        num_skipped=0 if probe.staged else len(trials) - len(applied),
        num_unscored=len(applied) - len(changes),
        shift=estimate_mean(shift_N, own_seed) if is_known else None,
        family_interval=interval,
        flips=estimate_rate(flip_N, own_seed) if len(flip_N) else None,
        verdict=judge_shift(probe.expects, interval),
        examples=_choose_examples(probe, changes),
    )


def _read_change(probe: Probe, trial: Trial) -> _Change | None:
    """What the probe did to the trial's answer; None where one of the two scores is missing."""
    recast = trial.recasts.get(probe.name)
    k = 0 if recast else trial.edits[probe.name]
    after_in = recast or trial
    before, after = trial.scores[0], after_in.scores[k]
    if before is None or after is None:
        return None
    example = Example(
        prompt=trial.question,
        before=trial.group.completions[0].text,
        after=after_in.group.completions[k].text,
        score_before=before,
        score_after=after,
    )
    if probe.expects is Expects.LOWER:
        return _Change(example=example, flip=(1 + float(np.sign(after - before))) / 2)
    turned = [
        abs(np.sign(before - rival) - np.sign(after - rival_after)) / 2
        for rival, rival_after in zip(trial.scores[1 : trial.num_own], after_in.scores[1 : trial.num_own], strict=True)
        if rival is not None and rival_after is not None
    ]
    return _Change(example=example, flip=float(np.mean(turned)) if turned else None)


def _choose_examples(probe: Probe, changes: Sequence[_Change]) -> tuple[Example, ...]:
    """Those that are most against what is expected: the greatest change, or the greatest rise."""
    badness = (lambda c: abs(c.shift)) if probe.expects is Expects.SAME else (lambda c: c.shift)
    worst = sorted(changes, key=badness, reverse=True)[:NUM_EXAMPLES]
    return tuple(change.example for change in worst)


def _find_notes(sample: Sample, spread: float, fewest: int) -> Iterator[str]:
    """What a reader of the figures has to know."""
    if sample.num_unusable:
        yield (
            f"{sample.num_unusable:,} of {sample.num_read:,} groups have no prompt, or no answer in text: "
            "they were not probed"
        )
    if len(sample.rows) < fewest:
        yield f"{len(sample.rows)} prompts are too few for a verdict; {fewest} are needed"
    if not spread > 0:
        yield "all answers in the data have the same score, so no shift can be measured"
