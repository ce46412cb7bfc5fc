"""Two models or more on the same data: who is right more often, by how much, where, and on which texts they differ.

Stands on `sets` and `measure`, beside `evaluate`; `plaudit compare` is its only caller beside Python. Each model scores
the data into OUT/scores/MODEL, one model in memory at a time; then everything is measured from there, pair by pair.
Invariant: every figure of a pair is of the same comparisons, those that both models scored.
Letters: N completions, C comparisons.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from plaudit import __version__
from plaudit.corpus.settings import Part, name_parts
from plaudit.embedded import EMBEDDED, looks_like_hub_name
from plaudit.errors import ConfigError, InternalError
from plaudit.evaluate import SCORES, Asking, describe_model, read_sets
from plaudit.formats.sources import COMPRESSIONS, KINDS
from plaudit.measure import Table, compare_scores, measure_accuracy, measure_calibration, measure_length
from plaudit.measure.compare import Disagreement
from plaudit.measure.intervals import Floats
from plaudit.measure.record import plain
from plaudit.measure.table import cut_text, show_content
from plaudit.parts import Ranks, Say, say_on_stderr
from plaudit.report import write_report
from plaudit.runs.environment import read_versions, say_command
from plaudit.sets import ScoredSet, SetJobs, Wanted, Watch, lay_out, name_file, name_sets, split_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A model, and what it is called in the report and in the folder of scores."""

    name: str
    place: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSettings:
    """What is compared on what; models and data as the command line names them."""

    models: tuple[str, ...]
    data: tuple[str, ...]
    out: Path
    wanted: Wanted
    asking: Asking = field(default_factory=Asking)
    seed: int = 0
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One model's scores of all sets, and what the report says of it."""

    contender: Contender
    sets: list[ScoredSet]
    about: Mapping[str, Any]


def split_words(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Models and data of a command line: two models at least, then as many more as look like one."""
    count = 2
    while count < len(words) and is_model(words[count]):
        count += 1
    if len(words) <= count:
        raise ConfigError(
            f"{' '.join(words)} came, two models at least and then data were needed: plaudit compare MODEL MODEL DATA"
        )
    return tuple(words[:count]), tuple(words[count:])


def is_model(word: str) -> bool:
    """Whether a word is a model's folder, or a name that can be nothing but a model's."""
    place = split_name(word)[1]
    path = Path(place).expanduser()
    if path.exists():
        return path.suffix == ".gguf" or any((path / n).is_file() for n in ("config.json", "adapter_config.json"))
    is_file = path.suffix.lower() in {*filter(None, KINDS), *COMPRESSIONS}
    return place == EMBEDDED or (looks_like_hub_name(place) and not is_file)


def name_models(words: Sequence[str]) -> list[Contender]:
    """The models by their own names (`name=place`), or by the ends of their paths."""
    parts = [Part(path=place.rstrip("/"), name=name) for name, place in map(split_name, words)]
    same = {part.path for part in parts if sum(other.path == part.path for other in parts) > 1}
    if same:
        raise ConfigError(f"{same.pop()} came twice, and would be compared with itself; name another model")
    names = [name_file(name) or "model" for name in name_parts(parts)]
    return [Contender(name=name, place=part.path) for name, part in zip(names, parts, strict=True)]


def compare(
    settings: CompareSettings,
    *,
    ranks: Ranks | None = None,
    say: Say = say_on_stderr,
    watch: Callable[[str], Watch] = lambda model: lambda scorer, pace: None,
) -> dict[str, Any] | None:
    """Score with each model, measure, write; gives the report. Of several ranks only the first has it.

    `watch` is asked for whom to tell about the scoring of each model.
    """
    ranks = ranks or Ranks.from_environment()
    contenders, folder = name_models(settings.models), settings.out / SCORES
    laid = lay_out(name_sets(settings.data), folder, settings.wanted, ranks)
    scored: list[Scored] = []
    for contender in contenders:
        with SetJobs(laid, folder / contender.name, settings.wanted, ranks=ranks, say=say) as jobs:
            for job in jobs.jobs if contender is contenders[0] else ():
                job.check_labels()
            loaded = settings.asking.load(contender.place)
            sets = jobs.score(loaded.net, loaded.scoring, watch(contender.name))
            about = describe_model(contender.place, loaded.net) | {"name": contender.name}
            scored.append(Scored(contender=contender, sets=sets, about=about))
            del loaded  # two of them may not fit in memory
    if ranks.rank != 0:
        return None
    report = _build_report(settings, scored)
    write_report(report, settings.out)
    return report


def _build_report(settings: CompareSettings, scored: Sequence[Scored]) -> dict[str, Any]:
    first = scored[0]
    seen = read_sets(first.sets, None, seed=settings.seed)
    table = seen.table
    scores = [read_scores(one.sets, table) for one in scored]
    pairs = [
        _compare_pair(table, first.sets, (scored[a].contender.name, scores[a]), (scored[b].contender.name, scores[b]))
        for a, b in combinations(range(len(scored)), 2)
    ]
    notes = list(dict.fromkeys(note for one in scored for part in one.sets for note in part.notes))
    report = {
        "plaudit": __version__,
        "kind": "compare",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": say_command(settings.command),
        "seed": settings.seed,
        "limit": settings.wanted.limit,
        "versions": read_versions(),
        "data": [one.describe() for one in first.sets],
        "seconds": {one.contender.name: sum(part.seconds for part in one.sets) for one in scored},
        "models": [_describe(one, table, score_N) for one, score_N in zip(scored, scores, strict=True)],
        "pairs": pairs,
        "notes": notes,
    }
    return dict(plain(report))


def read_scores(sets: Sequence[ScoredSet], table: Table) -> Floats:
    """Another model's scores of the completions of a table, in their order."""
    found = [np.nan if score is None else score for one in sets for _, scores, _ in one.lines() for score in scores]
    if len(found) != table.num_completions:
        raise InternalError(f"{len(found):,} scores came for {table.num_completions:,} completions of the same data")
    return np.array(found, dtype=np.float64)


def _describe(one: Scored, table: Table, score_N: Floats) -> dict[str, Any]:
    """A model and its own figures."""
    calibration, length = measure_calibration(table, scores=score_N), measure_length(table, scores=score_N)
    return {
        **one.about,
        **measure_accuracy(table, scores=score_N).as_json(),
        "ece": calibration.ece if calibration else None,
        "temperature": calibration.temperature if calibration else None,
        "length_correlation": length.correlation,
        "length_correlation_ci": length.correlation_ci,
    }


Named = tuple[str, Floats]


def _compare_pair(table: Table, sets: Sequence[ScoredSet], a: Named, b: Named) -> dict[str, Any]:
    """One model against another, with the texts on which they differ most."""
    (name_a, scores_a), (name_b, scores_b) = a, b
    found = compare_scores(table, scores_a, scores_b)
    texts = show_disagreements(found.disagreements, table, sets, (a, b))
    return {"a": name_a, "b": name_b, **found.as_json(), "disagreements": texts}


def show_disagreements(
    found: Sequence[Disagreement], table: Table, sets: Sequence[ScoredSet], models: tuple[Named, Named]
) -> list[dict[str, Any]]:
    """The texts of disagreements, and both models' scores, the widest first; read again, as a table keeps no texts."""
    wanted = {one.group for one in found}
    lines = enumerate(line for one in sets for line in one.lines())
    groups = {n: group for n, (group, _, _) in lines if n in wanted}
    (name_a, scores_a), (name_b, scores_b) = models
    shown = []
    for one in sorted(found, key=lambda one: -abs(one.a - one.b)):
        group, first = groups[one.group], int(table.start_G[one.group])
        better, worse = first + one.better, first + one.worse
        shown.append(
            {
                "prompt": cut_text(show_content(group.prompt)),
                "better": cut_text(group.completions[one.better].text),
                "worse": cut_text(group.completions[one.worse].text),
                "a_better": scores_a[better],
                "a_worse": scores_a[worse],
                "b_better": scores_b[better],
                "b_worse": scores_b[worse],
                "right": name_a if one.a > 0 else name_b,
                "subset": one.subset,
                "id": one.id,
            }
        )
    return shown
