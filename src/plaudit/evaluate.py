"""A model and labelled data -> what can be said of the model: report.json, report.html, and what its folder learns.

Stands on `sets`, `measure`, `probes`, `benchmarks` and `drift`; `plaudit eval` is its only caller beside Python. The
data are scored into OUT/scores first, and measured from there in a second pass that costs seconds: a killed evaluation
goes on, and one that is asked again with other options scores nothing twice. Invariant: report.json is written last and
whole, after everything that it speaks of; a number in it that is not finite is null.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plaudit import __version__
from plaudit.adjust import CALIBRATION, LENGTH_CORRECTION, Calibration, check_storable, store_findings
from plaudit.benchmarks import BenchmarkResult, Tally, detect_benchmark, find_benchmark
from plaudit.contamination import Contamination, ContaminationCheck, SeenData, open_seen
from plaudit.drift import draw_groups, judge_drift, measure_distances, measure_fall, read_hidden
from plaudit.errors import ConfigError
from plaudit.figures import collect_figures
from plaudit.group import Group
from plaudit.journal import Journal
from plaudit.keys import digest_texts
from plaudit.measure import Table, TableBuilder, measure_accuracy, measure_shift
from plaudit.measure.record import plain
from plaudit.parts import Ranks, Say, say_on_stderr
from plaudit.probes import ProbeSettings, measure_probes
from plaudit.report import write_report
from plaudit.runs import read_metrics
from plaudit.runs.environment import read_versions, say_command
from plaudit.sets import DataSet, ScoredSet, SetJobs, Wanted, Watch, lay_out, name_sets, split_name

if TYPE_CHECKING:
    from plaudit.score import RewardModel, Scorer, ScoreSettings

SCORES = "scores"
"""What OUT holds beside the report."""

REFERENCE = "reference"
"""What the reference is called in the folder of scores, unless its user says otherwise."""

WINDOW = 256
"""Groups whose tokens are counted at once."""

PROBED = 100
"""Prompts that are probed in an evaluation; `plaudit probe` takes more."""

BOTH_ENDS = 64
"""Groups whose scores at the closing token are compared with those at the last; each is scored once more for that."""

Stage = Callable[[str, int, int | None], None]
"""Called while something other than scoring of rows goes on: what, how much is done, of how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """How models are loaded, and how text becomes their scores: as `plaudit score` has it."""

    dtype: str = "auto"
    device: str | None = None
    plain: bool = False
    max_length: int | None = None
    overlength: str = "error"
    keep_system: bool = False
    budget: int | None = None
    score_position: str | None = None

    def load(self, name: str) -> Loaded:
        """The model of this name; torch is not woken before."""
        from plaudit.render import Overlength, RenderSettings
        from plaudit.score import RewardModel, ScoreSettings

        render = RenderSettings(
            max_length=self.max_length, overlength=Overlength(self.overlength), plain=self.plain,
            keep_system=self.keep_system,
        )  # fmt: skip
        scoring = ScoreSettings(budget=self.budget, render=render)
        net = RewardModel.load(name, dtype=self.dtype, device=self.device, score_position=self.score_position)
        return Loaded(net=net, scoring=scoring)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model, and how it is asked."""

    net: RewardModel
    scoring: ScoreSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """What is asked of an evaluation; data, a reference and training data as the command line names them."""

    model: str
    data: tuple[str, ...]
    out: Path
    wanted: Wanted
    asking: Asking = field(default_factory=Asking)
    reference: str | None = None
    against: tuple[str, ...] = ()
    probes: bool = True
    probed: int = PROBED
    fit_length: bool = False
    calibrate: bool = False
    seed: int = 0
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))


def evaluate(
    settings: EvalSettings,
    *,
    ranks: Ranks | None = None,
    say: Say = say_on_stderr,
    watch: Watch = lambda scorer, pace: None,
    stage: Stage = lambda what, done, total: None,
) -> dict[str, Any] | None:
    """Score, measure, write; gives the report. Of several ranks each scores its share, and the first one goes on."""
    ranks = ranks or Ranks.from_environment()
    wishes = [word for word, is_on in (("fit-length", settings.fit_length), ("calibrate", settings.calibrate)) if is_on]
    check_storable(settings.model, wishes)
    folder = settings.out / SCORES
    asked, reference = _name_all(settings)
    laid = lay_out([*asked, *reference], folder, settings.wanted, ranks)
    with SetJobs(laid, folder, settings.wanted, ranks=ranks, say=say) as jobs:
        for job in jobs.jobs if settings.reference is None else ():
            job.check_labels()
        loaded = settings.asking.load(settings.model)
        scored = jobs.score(loaded.net, loaded.scoring, watch)
    if ranks.rank != 0:
        return None
    run = _Evaluation(settings, loaded, say, stage)
    report = run.measure(scored[: len(asked)], scored[len(asked) :])
    write_report(report, settings.out)
    return report


def _name_all(settings: EvalSettings) -> tuple[list[DataSet], list[DataSet]]:
    """The sets that are measured, called as they would be without a reference; and the reference."""
    asked = name_sets(settings.data)
    if settings.reference is None:
        return asked, []
    [reference, *others] = name_sets([settings.reference])
    if others:
        raise ConfigError(f"--reference {settings.reference} came, which is several sets; one was needed")
    if split_name(settings.reference)[0] is None:
        reference = replace(reference, name=REFERENCE)
    if reference.name in {one.name for one in asked}:
        raise ConfigError(f"data and reference would both be called {reference.name!r}; name one of them: NAME=DATA")
    return asked, [reference]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One pass over scored sets: the table, benchmarks that were found in them, and what is in no figure."""

    table: Table
    benchmarks: tuple[BenchmarkResult, ...]
    unlabelled: int
    reasons: Mapping[str, int]
    contamination: Contamination | None


def read_sets(sets: Sequence[ScoredSet], net: RewardModel | None, *, seed: int, seen: SeenData | None = None) -> Seen:
    """The sets as one table, with the net's tokens if it is given; texts are let go of as they are read.

    With what training has `seen`, every Group is held against that.
    """
    builder, tallies = TableBuilder(seed=seed), _Tallies(seed)
    check = ContaminationCheck(seen=seen) if seen is not None else None
    unlabelled, reasons = 0, Counter[str]()
    for one in sets:
        lines = one.lines()
        while window := list(islice(lines, WINDOW)):
            texts = [c.text for group, _, _ in window for c in group.completions] if net is not None else []
            counts = iter(net.count_tokens(texts)) if net is not None else None
            for group, scores, why in window:
                tokens = list(islice(counts, len(scores))) if counts is not None else None
                builder.add(group, scores, tokens=tokens, dataset=one.name)
                tallies.add(one, group, scores)
                if check is not None:
                    check.add(group)
                unlabelled += next(group.comparisons(), None) is None
                # "too long: 613 tokens": the kind is what is counted.
                reasons.update(reason.partition(": ")[0] for reason in why if reason)
    return Seen(
        table=builder.finish(), benchmarks=tallies.finish(), unlabelled=unlabelled, reasons=dict(reasons.most_common()),
        contamination=check.finish() if check is not None else None,
    )  # fmt: skip


class _Tallies:
    """Benchmarks by name, as their rows come: sets that were named as one, and rows that say which one they are of."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._found: dict[str, Tally] = {}

    def add(self, one: ScoredSet, group: Group, scores: Sequence[float | None]) -> None:
        named = one.asked.benchmark
        benchmark = find_benchmark(named) if named is not None else detect_benchmark(one.dialect, group)
        if benchmark is not None:
            tally = self._found.setdefault(benchmark.name, Tally(benchmark, seed=self._seed))
            tally.add(group, scores, dataset=one.asked.place)

    def finish(self) -> tuple[BenchmarkResult, ...]:
        return tuple(tally.finish() for tally in self._found.values())


class _Evaluation:
    """From scored sets to a report."""

    def __init__(self, settings: EvalSettings, loaded: Loaded, say: Say, stage: Stage) -> None:
        self.settings, self.say, self.stage = settings, say, stage
        self.net, self.scoring = loaded.net, loaded.scoring
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """The seconds of a part, for the report."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began

    def measure(self, new: Sequence[ScoredSet], old: Sequence[ScoredSet]) -> dict[str, Any]:
        """Everything, in the order of the report."""
        with self.timing("measure"):
            record = open_seen(self.net.checkpoint.folder, self.settings.against)
            seen = read_sets(new, self.net, seed=self.settings.seed, seen=record)
            figures = collect_figures(seen.table)
        self.notes += dict.fromkeys(note for one in (*new, *old) for note in one.notes)
        if seen.unlabelled:
            self.notes.append(
                f"{seen.unlabelled:,} of {seen.table.num_groups:,} groups have no label, and are in no accuracy"
            )
        found: dict[str, Any] = {"unscored_reasons": dict(seen.reasons)}
        found["stored"] = self._store(seen.table, figures, new)
        found["drift"] = self._measure_drift(seen.table, new, old) if old else None
        found |= {"probes": [], "probe_spread": None, "probe_prompts": 0}
        if self.settings.probes:
            found |= self._probe(new)
        found["ends"] = self._measure_ends(new)
        found["contamination"] = _describe_contamination(seen)
        found["benchmarks"] = {one.name: one.as_json() for one in seen.benchmarks}
        found["training"] = read_training(self.net.checkpoint.folder)
        report = self._describe(new) | figures | found
        report["notes"] = list(dict.fromkeys([*figures.get("notes", []), *self.notes]))
        return dict(plain(report))

    def _describe(self, sets: Sequence[ScoredSet]) -> dict[str, Any]:
        """What was measured, on what, how, and how long it took."""
        return {
            "plaudit": __version__,
            "kind": "eval",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": say_command(self.settings.command),
            "seed": self.settings.seed,
            "limit": self.settings.wanted.limit,
            "model": describe_model(self.settings.model, self.net),
            "versions": read_versions(),
            "data": [one.describe() for one in sets],
            "seconds": {"score": sum(one.seconds for one in sets)} | self.seconds,
        }

    def _store(self, table: Table, figures: Mapping[str, Any], sets: Sequence[ScoredSet]) -> list[str]:
        """What was fitted goes into the model's folder, if that was wanted; gives what is new there.

        What cannot be fitted is a note: the report is there all the same, and what was stored before stays.
        """
        found: dict[str, Any] = {}
        data = {one.name: one.digest for one in sets}
        if self.settings.calibrate and figures["temperature"] is not None:
            kept = Calibration(temperature=figures["temperature"], comparisons=figures["n"], data=data)
            found[CALIBRATION] = kept.as_json()
        elif self.settings.calibrate:
            self.notes.append(
                f"no temperature fits these scores ({figures['n']:,} comparisons of {figures['prompts']:,} prompts): "
                "all are right, or no more than chance is; none is stored, calibrate on other data"
            )
        if self.settings.fit_length and figures["length_fit"] is not None:
            found[LENGTH_CORRECTION] = figures["length_fit"] | {"data": data}
        elif self.settings.fit_length:
            self.notes.append(
                f"{table.num_completions - table.num_unscored:,} scored answers are too few to say what length is "
                "worth: no length correction is stored, fit it on more data"
            )
        if found:
            file = store_findings(self.net.checkpoint.folder, found)
            self.say(f"{file}: {' and '.join(found)} stored")
        return list(found)

    def _scorer(self) -> Scorer:
        """For Groups that are made or drawn here: what is too long has no score, whatever was asked for the data."""
        from plaudit.render import Overlength
        from plaudit.score import Scorer

        render = replace(self.scoring.render, overlength=Overlength.UNSCORED)
        return Scorer(self.net, replace(self.scoring, render=render))

    def _measure_ends(self, sets: Sequence[ScoredSet]) -> dict[str, Any] | None:
        """Whether scores read at the closing token are the same judgement, on the first Groups."""
        from plaudit.ends import describe_ends, measure_ends

        scorer = self._scorer()
        if not scorer.renderer.trailing:
            return None
        groups = (group for one in sets for group, _, _ in one.lines())
        with self.timing("ends"):
            ends = measure_ends(scorer, groups, most=BOTH_ENDS)
        if ends is None:
            return None
        found = ends.as_json()
        self.notes += [] if ends.agrees else [describe_ends(found)]
        return found

    def _probe(self, sets: Sequence[ScoredSet]) -> dict[str, Any]:
        """What the scorer sees and does not see."""
        plan = digest_texts([*(one.plan for one in sets), str(self.settings.seed)]).hex()
        scorer = Journal(self._scorer(), self.settings.out / SCORES / "probes.journal", plan)
        groups = (group for one in sets for group, _, _ in one.lines())
        with self.timing("probes"):
            report = measure_probes(
                scorer, groups, settings=ProbeSettings(limit=self.settings.probed, seed=self.settings.seed),
                watch=partial(self.stage, "probing"),
            )  # fmt: skip
        self.notes += report.notes
        found = report.as_json()
        return {"probes": found["probes"], "probe_spread": found["spread"], "probe_prompts": found["prompts"]}

    def _measure_drift(self, table: Table, new: Sequence[ScoredSet], old: Sequence[ScoredSet]) -> dict[str, Any]:
        """The new data against the reference."""
        seed = self.settings.seed
        with self.timing("drift"):
            before = read_sets(old, self.net, seed=seed).table
            scorer = self._scorer()
            hidden = []
            for what, sets in (("reading new answers", new), ("reading reference answers", old)):
                drawn = draw_groups((group for one in sets for group, _, _ in one.lines()), seed=seed)
                hidden.append(read_hidden(scorer, drawn, partial(self.stage, what)))
            distances = measure_distances(*hidden, seed=seed)
            fall = measure_fall(table, before)
        retrain, verdict, reasons = judge_drift(fall, distances)
        return {
            "retrain": retrain,
            "verdict": verdict,
            "notes": reasons,
            "reference": [one.describe() for one in old],
            "accuracy": fall.as_json(),
            **measure_shift(table, before).as_json(),
            "far": distances.as_json() if distances else None,
        }


def _describe_contamination(seen: Seen) -> dict[str, Any] | None:
    """What of the data training was given, and the accuracy on the rest."""
    found = seen.contamination
    if found is None:
        return None
    told = {**found.as_json(), "clean_accuracy": None}
    if found.flagged:
        is_clean_G = ~np.array(found.is_flagged, dtype=np.bool_)
        told["clean_accuracy"] = measure_accuracy(seen.table, mask=is_clean_G[seen.table.group_C]).as_json()
    return told


def describe_model(name: str, net: RewardModel) -> dict[str, Any]:
    """What a report says of a model: which one it is, and how it was computed."""
    card = net.checkpoint.card
    return {
        "name": Path(name).name if Path(name).name != "model" else "/".join(Path(name).parts[-2:]),
        "folder": str(net.checkpoint.folder),
        "architecture": type(net.hf).__name__,
        "dtype": str(net.dtype).removeprefix("torch."),
        "device": str(net.device),
        "back_end": net.backend,
        "calibration": card.get(CALIBRATION),
        "trained": card.get("trained"),
    }


def read_training(folder: Path) -> dict[str, Any] | None:
    """The curve of the run that made the model, where its folder lies in the run's."""
    try:
        rows = read_metrics(folder.resolve().parent / "metrics.jsonl")
    except OSError:
        return None
    return {"curve": rows} if rows else None
