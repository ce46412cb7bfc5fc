"""Data that a model is measured on: each set named, scored once into a folder, and read from there with its scores.

Stands on `scorefile` and `corpus`, above `evaluate` and `compare`. A set is scored into FOLDER/NAME.jsonl, which holds
its rows as they came; NAME.state.json beside it says by which plan, so that the same command scores nothing twice and
goes on where it was killed. Invariant: a scored set has a row for every good row of its data, in their order, whatever
was left out of scoring: two models' files of one set can be read side by side.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from plaudit.benchmarks import Named, advise, find_benchmark, resolve_benchmark
from plaudit.corpus.reading import digest_file, is_file, name_group
from plaudit.corpus.settings import Part, name_parts
from plaudit.errors import ConfigError, DataError
from plaudit.files import AtomicFile, write_file
from plaudit.formats import Reader
from plaudit.formats.jsontext import dump_row
from plaudit.formats.reader import read_policy
from plaudit.formats.sources import STDIN, hash_file, resolve_sources
from plaudit.group import Group
from plaudit.intake import ReadSettings
from plaudit.parts import Ranks, Say
from plaudit.report import make_folder
from plaudit.scorefile import ScoreJob

if TYPE_CHECKING:
    from plaudit.model import RewardNet
    from plaudit.score import Scorer, ScoreSettings

GIVEN = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)", re.DOTALL)
"""`name=place`: how a set is called by its user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Rows that are done, in how many there are if that is known; `resumed` of them were done by earlier runs."""

    done: int
    total: int | None
    resumed: int


Watch = Callable[["Scorer", Pace], None]
"""Called after each pack."""

Line = tuple[Group, list[float | None], list[str | None]]
"""A Group, the score of each completion, and why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """What a user named, and what it is called.

    `source` is what is read for it, in the dialect `format` if that is known; `benchmark` is the one it was named as.
    """

    name: str
    place: str
    source: str
    format: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How sets are read: as `plaudit score` reads them, at most `limit` rows drawn by `seed`."""

    reading: ReadSettings
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit {self.limit} came, at least 1 was needed")
        read_policy(self.reading.bad_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSet:
    """A set with its scores on the disk. `digest` tells its data from others, where they are files.

    `plan` stands for everything that its scores depend on; `resumed` of its rows were scored by earlier runs.
    """

    asked: DataSet
    file: Path
    dialect: str
    reading: ReadSettings
    digest: str | None
    summary: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds: float
    plan: str
    resumed: int

    @property
    def name(self) -> str:
        """What it is called."""
        return self.asked.name

    def lines(self) -> Iterator[Line]:
        """Every Group with its scores, as often as one likes."""
        with Reader(self.file, format=self.dialect, columns=self.reading.columns) as reader:
            for row in reader:
                scores = row.raw["scores"]
                reasons = row.raw.get("unscored") or [None] * len(scores)
                yield name_group(row.group, row.file, row.line), scores, reasons

    def describe(self) -> dict[str, Any]:
        """What a report says of the data."""
        return {
            "name": self.name,
            "path": self.asked.place,
            "format": self.dialect,
            "groups": self.summary["rows"],
            "completions": self.summary["completions"],
            "bad_rows": self.summary["bad_rows"],
            "sha256": self.digest,
            "scores": str(self.file),
        }


def split_name(word: str) -> tuple[str | None, str]:
    """`name=place` as its two halves; a word that is no such thing, or is a file that is called so, has no name."""
    given = GIVEN.fullmatch(word)
    return (given[1], given[2]) if given is not None and not Path(word).exists() else (None, word)


def name_file(name: str) -> str:
    """A name as one of a file or folder; empty if nothing of it can be in one."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")


def name_sets(words: Sequence[str]) -> list[DataSet]:
    """The sets that a command line names: `name=place`, a benchmark, or a place, called by the end of its path."""
    parts: list[Part] = []
    benchmarks: list[str | None] = []
    for word in words:
        named = resolve_benchmark(word)
        if named is not None:
            own = _benchmark_parts(named)
            parts += own
            benchmarks += [named.benchmark.name] * len(own)
            continue
        name, place = split_name(word)
        parts.append(Part(path=place, name=name))
        benchmarks.append(None)
    if not parts:
        raise ConfigError("no data came; name at least one file, folder, URL or hub:owner/name, or - for stdin")
    if sum(part.path == STDIN for part in parts) > 1:
        raise ConfigError("stdin (-) came twice, and it can be read only once; put the rows in a file and name that")
    names = [name_file(name) or "data" for name in name_parts(parts)]
    for name, part in zip(names, parts, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"two sets would be called {name!r}; give each a name of its own: first={part.path}")
    return [
        DataSet(name=name, place=part.path, source=part.path, benchmark=benchmark)
        for name, part, benchmark in zip(names, parts, benchmarks, strict=True)
    ]


def _benchmark_parts(named: Named) -> list[Part]:
    """A benchmark's files, each a set of its own: a file's name may say which part of the benchmark it is."""
    places = [source.name for path in named.paths for source in resolve_sources(path)]
    lead = named.benchmark.name
    if len(places) == 1:
        return [Part(path=places[0], name=lead)]
    names = name_parts([Part(path=place) for place in places])
    return [Part(path=place, name=f"{lead}-{name}") for place, name in zip(places, names, strict=True)]


def lay_out(asked: Sequence[DataSet], folder: Path, wanted: Wanted, ranks: Ranks) -> list[DataSet]:
    """The same sets, each as something that can be read twice: stdin is kept, and rows are drawn, in `folder`."""
    for one in asked:
        if one.source != STDIN:
            resolve_sources(one.source)
        elif ranks.world > 1:
            raise ConfigError("several ranks share one disk, and stdin came; put the rows in a file and name that")
    make_folder(folder)
    kept = [_keep_stdin(one, folder) if one.source == STDIN else one for one in asked]
    for one in kept:
        _check_dialects(one, wanted.reading)
    return kept if wanted.limit is None else [_draw(one, folder, wanted) for one in kept]


def _keep_stdin(asked: DataSet, folder: Path) -> DataSet:
    file = folder / f"{asked.name}.rows.jsonl"
    _write_if_new(file, lambda stream: shutil.copyfileobj(sys.stdin.buffer, stream))
    if not file.stat().st_size:
        raise DataError("nothing came, at least one row was needed; check what is piped in", file="stdin")
    return replace(asked, source=str(file))


def _check_dialects(asked: DataSet, reading: ReadSettings) -> None:
    """A set is one dialect, since its scored rows are one file."""
    found: dict[str, str] = {}
    sources = [source for source in resolve_sources(asked.source) if not source.is_url and source.kind != "hub"]
    for source in sources if len(sources) > 1 and reading.format is None else []:
        with reading.quietly().open(source.place) as reader:
            next(iter(reader.records()), None)
            found.setdefault(str(reader.dialect), source.name)
    if len(found) > 1:
        (one, place), (other, elsewhere), *_ = found.items()
        raise DataError(
            f"rows of two kinds came, {one} in {place} and {other} in {elsewhere}; name them as two sets",
            file=asked.place,
        )


def _draw(asked: DataSet, folder: Path, wanted: Wanted) -> DataSet:
    """The set, of which only those rows are read that the lot chose, in their order: sorted files stay mixed."""
    lots, most = random.Random(wanted.seed), wanted.limit or 0
    held: list[tuple[float, int, dict[str, Any]]] = []
    with wanted.reading.quietly().open(asked.source) as reader:
        for at, record in enumerate(reader.records()):
            one = (-lots.random(), at, record.raw)
            (heapq.heappush if len(held) < most else heapq.heappushpop)(held, one)
        dialect = reader.dialect or wanted.reading.format
    file = folder / f"{asked.name}.drawn.jsonl"
    rows = [dump_row(raw) + b"\n" for _, _, raw in sorted(held, key=lambda one: one[1])]
    _write_if_new(file, lambda stream: stream.writelines(rows))
    return replace(asked, source=str(file), format=dialect)


def _write_if_new(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole; one that would not change is left alone, as its time is part of what tells a plan."""
    draft = AtomicFile(file)
    try:
        write(draft.stream)
        draft.stream.flush()
        if file.is_file() and hash_file(file) == hash_file(draft.temporary or draft.target):
            draft.discard()
        else:
            draft.commit()
    except BaseException:
        draft.discard()
        raise


class SetJob:
    """One set on its way into `folder`. Making one raises what is wrong with its data; close it afterwards."""

    def __init__(self, asked: DataSet, folder: Path, wanted: Wanted, *, ranks: Ranks, say: Say) -> None:
        self.asked, self.wanted = asked, wanted
        self.aside = folder / f"{asked.name}.bad-rows.jsonl"
        self._file, self._state = folder / f"{asked.name}.jsonl", folder / f"{asked.name}.state.json"
        reading = wanted.reading
        if read_policy(reading.bad_rows) is not None:
            # To a file of this set's own first: several sets may be told one place.
            reading = replace(reading, bad_rows=f"skip={self.aside}")
        if asked.format is not None:
            reading = replace(reading, format=asked.format)
        self.job = ScoreJob([asked.source], str(self._file), reading=reading, ranks=ranks, say=say)

    def check_labels(self) -> None:
        """Raise DataError if no row says which completion is better, before a model is loaded."""
        try:
            with self.job.intake.reader() as reader:
                is_labelled = any(True for row in reader for _ in row.group.comparisons())
        except DataError as error:
            if self.asked.benchmark is None or is_file(resolve_sources(self.asked.source)[0]):
                raise
            raise DataError(
                f"{error.reason}; {advise(find_benchmark(self.asked.benchmark))}", file=error.file, line=error.line
            ) from None
        if not is_labelled:
            raise DataError(
                "no row of it says which completion is better, and without that nothing can be measured; "
                f"label it, or score it with: plaudit score MODEL {self.asked.place} -o OUT",
                file=self.asked.place,
            )

    def score(self, net: RewardNet, settings: ScoreSettings, watch: Watch) -> ScoredSet | None:
        """Score what is not scored yet; the set as it lies on the disk, or None on a rank that is not the first."""
        began = time.perf_counter()
        self.job.open(net, settings)
        plan = self.job.parts.folder.name
        if (found := self._recall(plan)) is not None:
            self.job.parts.remove()
            return found if self.job.ranks.rank == 0 else None
        done = self.job.count_done()
        if done:
            self.job.say(f"{self.asked.name}: {done:,} rows were scored already; going on from there")
        self.job.score(lambda scorer, rows: watch(scorer, Pace(done=rows, total=None, resumed=done)))
        if self.job.ranks.rank != 0:
            return None
        summary = self.job.merge(keeps_dropped=True)
        with Reader(self._file, format=self.job.intake.settings.format, columns=self.wanted.reading.columns) as reader:
            row = next(iter(reader))
        stat = self._file.stat()
        state = {
            "plan": plan,
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "dialect": row.dialect.name,
            "digest": self._digest(),
            "summary": summary.as_json(),
            "notes": list(dict.fromkeys(self.job.notes)),
            "seconds": time.perf_counter() - began,
        }
        write_file(self._state, json.dumps(state, indent=2) + "\n")
        return self._recall(plan, resumed=done)

    def _recall(self, plan: str, resumed: int | None = None) -> ScoredSet | None:
        """The set, if it was scored by this very plan and has not been touched since."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            stat = self._file.stat()
        except (OSError, ValueError):
            return None
        if [plan, stat.st_size, stat.st_mtime_ns] != [state.get(name) for name in ("plan", "size", "mtime_ns")]:
            return None
        return ScoredSet(
            asked=self.asked, file=self._file, dialect=state["dialect"], reading=self.wanted.reading,
            digest=state["digest"], summary=state["summary"], notes=tuple(state["notes"]), seconds=state["seconds"],
            plan=plan, resumed=int(state["summary"]["rows"]) if resumed is None else resumed,
        )  # fmt: skip

    def _digest(self) -> str | None:
        """The hash of the data as sha256sum prints it, or of several files' hashes; None where they are elsewhere."""
        sources = resolve_sources(self.asked.source if self.asked.place == STDIN else self.asked.place)
        if not all(is_file(source) for source in sources):
            return None
        found = [digest_file(source).removeprefix("sha256:") for source in sources]
        return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


class SetJobs:
    """All sets that one model is asked about, scored one after the other. Use it as a context manager."""

    def __init__(self, asked: Sequence[DataSet], folder: Path, wanted: Wanted, *, ranks: Ranks, say: Say) -> None:
        make_folder(folder)
        self.wanted, self.say = wanted, say
        self._stack = ExitStack()
        self.jobs: list[SetJob] = []
        try:
            for one in asked:
                made = SetJob(one, folder, wanted, ranks=ranks, say=say)
                self._stack.push(made.job)
                self.jobs.append(made)
        except BaseException:
            self._stack.close()
            raise

    def score(self, net: RewardNet, settings: ScoreSettings, watch: Watch) -> list[ScoredSet]:
        """Score them all; none on a rank that is not the first. `watch` hears of all sets together."""
        counts = [made.job.intake.count_rows() for made in self.jobs]
        total = sum(count for count in counts if count is not None) if None not in counts else None
        found: list[ScoredSet] = []
        lead = resumed = 0
        for made in self.jobs:

            def look(scorer: Scorer, pace: Pace, lead: int = lead, resumed: int = resumed) -> None:
                watch(scorer, Pace(done=lead + pace.done, total=total, resumed=resumed + pace.resumed))

            scored = made.score(net, settings, look)
            if scored is not None:
                found.append(scored)
                lead += int(scored.summary["rows"])
                resumed += scored.resumed
        if found:
            self._gather_bad_rows()
        return found

    def _gather_bad_rows(self) -> None:
        """Bad rows of all sets, where the user wanted them."""
        place = read_policy(self.wanted.reading.bad_rows)
        if place is None:
            return
        texts = [made.aside.read_bytes() for made in self.jobs if made.aside.is_file()]
        write_file(place, b"".join(texts))

    def __enter__(self) -> SetJobs:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
