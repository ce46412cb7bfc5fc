"""Files in, the same rows with scores out: a long job that can be killed at any moment and goes on where it was.

Stands on `score`, `parts`, `intake` and `formats`. Rows are cut into windows; each window's scores are one part, whole
or not there. Ranks take turns at windows, so any number of processes and nodes that share a disk work on one plan. When
all parts are there, rank 0 reads the rows once more, joins them with their scores in input order, and moves the output
into place. What can be wrong with the data is said before a model is loaded (no torch until then).

Scoring changes no label: ratings that a row came with in `scores` are kept in `gold_scores`, where its dialect reads
them from then on. Any other row leaves as a row whose `scores` are no labels, so what we have scored is known as such:
scored again, old scores make way for new ones, and no row grows.

A part holds a digest of each row that it scored. A run that resumes, and the join, compare them with the rows as they
are read then: a URL or a file whose content changed meanwhile is refused with the first row that differs, so no score
is ever attached to another row.

Invariant: the output is a function of the plan alone: killed and resumed, on one rank or many, it is the same bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from plaudit import __version__
from plaudit.adjust import forget_findings
from plaudit.checkpoint import CARD, read_card
from plaudit.errors import ConfigError, DataError, InputError, InternalError
from plaudit.formats import Columns, Reader, Record, Row, RowWriter, native, scored
from plaudit.formats.content import FRESH_SCORES, GOLD_SCORES, Raw
from plaudit.formats.sources import Source, is_pipe, resolve_sources
from plaudit.formats.writer import say_nulled
from plaudit.group import Group
from plaudit.intake import Intake, ReadSettings
from plaudit.parts import Parts, Ranks, Say, is_passing, say_on_stderr
from plaudit.positions import describe_position
from plaudit.render import RenderCounts, Rendered, Renderer

if TYPE_CHECKING:
    from plaudit.model import RewardNet
    from plaudit.score import Read, Scorer, Scores, ScoreSettings, Window

FORMAT_VERSION = 3

DIGEST = 16
"""Characters of a row's digest in the text that a part keeps of its rows."""


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a scoring job did; counts cover the whole output, resumed parts included."""

    rows: int = 0
    completions: int = 0
    scored: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    gold: int = 0
    replaced: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    rendered: Counter[str] = field(default_factory=Counter)
    nonfinite: Counter[str] = field(default_factory=Counter)

    @property
    def sharing(self) -> float:
        """Tokens of all completions for each token that was computed."""
        return self.total_tokens / self.unique_tokens if self.unique_tokens else 1.0

    def as_json(self) -> dict[str, Any]:
        """The numbers under stable names."""
        return {
            "rows": self.rows,
            "completions": self.completions,
            "scored": self.scored,
            "unscored": sum(self.unscored.values()),
            "unscored_reasons": dict(self.unscored),
            "dropped": sum(self.dropped.values()),
            "dropped_reasons": dict(self.dropped),
            "bad_rows": self.bad_rows,
            "gold_rows": self.gold,
            "replaced_rows": self.replaced,
            "unique_tokens": self.unique_tokens,
            "total_tokens": self.total_tokens,
            "sharing": self.sharing,
        }

    def headline(self) -> str:
        """What a report says of the job, on two lines."""
        lost = "".join(f", {count:,} not ({reason})" for reason, count in self.unscored.most_common())
        left_out = "".join(f", {count:,} rows left out ({reason})" for reason, count in self.dropped.most_common())
        bad = f", {self.bad_rows:,} bad rows set aside" if self.bad_rows else ""
        return (
            f"{self.rows:,} rows, {self.scored:,} of {self.completions:,} completions scored{lost}{left_out}{bad}\n"
            f"{self.unique_tokens:,} tokens computed for {self.total_tokens:,} ({self.sharing:.2f}x shared)"
        )

    def sentences(self) -> list[str]:
        """What rendering did, over all parts, and what became of columns of the names that scoring writes."""
        counts = RenderCounts()
        for name, value in self.rendered.items():
            field_name, _, reason = name.partition(".")
            if reason:
                getattr(counts, field_name)[reason] += value
            else:
                setattr(counts, field_name, value)
        gold, replaced = (f"{count:,} row{'s' if count > 1 else ''}" for count in (self.gold, self.replaced))
        said = counts.sentences()
        said += [f"{gold} came with ratings in `scores`, which are kept in `{GOLD_SCORES}`"] if self.gold else []
        said += [f"{replaced} came with scores, which the new ones replace"] if self.replaced else []
        said += say_nulled(self.nonfinite)
        return said


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """Rows that are committed together, and their digests; without `rendered` they were committed before."""

    number: int
    num_rows: int
    digests: str = ""
    is_bad: list[bool] = field(default_factory=list)
    rendered: list[Rendered] | None = None
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Joining:
    """How rows and scores are joined."""

    columns: Columns | None
    readings: Mapping[str, Read]
    keeps_dropped: bool


Watch = Callable[["Scorer", int], None]
"""Called after each pack with the scorer and the rows that are done, by this run and those before it."""


class ScoreJob:
    """Scores of `sources` into `out`. `open()` plans it, `score()` does this rank's share, `merge()` joins, on rank 0.

    Making one looks at the paths and the first rows, and raises what is wrong with them. Use it as a context manager.
    """

    def __init__(
        self,
        sources: Sequence[str | Source],
        out: str,
        *,
        reading: ReadSettings | None = None,
        ranks: Ranks | None = None,
        say: Say = say_on_stderr,
    ) -> None:
        self.out, self.ranks, self.say = out, ranks or Ranks.from_environment(), say
        self.notes: list[str] = []
        self.num_rows: int | None = None
        self._digests: list[str] = []
        self._num_windows: int | None = None
        self._data: list[str] = []
        self._parts: Parts | None = None
        self._scorer: Scorer | None = None
        if self.ranks.world > 1 and (is_passing(out) or any(map(is_pipe, resolve_sources(sources)))):
            raise ConfigError("several ranks share one disk, and a pipe came; name files for data and output")
        self.intake = Intake(sources, out, reading)

    def __enter__(self) -> ScoreJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parts is not None:
            self._parts.close()
        self.intake.close()

    @property
    def parts(self) -> Parts:
        """The folder of parts, once the job is open."""
        if self._parts is None:
            raise InternalError("a scoring job was used before it was opened")
        return self._parts

    @property
    def scorer(self) -> Scorer:
        """What scores, once the job is open."""
        if self._scorer is None:
            raise InternalError("a scoring job was used before it was opened")
        return self._scorer

    def open(self, net: RewardNet, settings: ScoreSettings) -> None:
        """Make the plan, and find the parts of it that are there."""
        from plaudit.score import Scorer

        self._scorer, self._data = Scorer(net, settings), self.intake.digests()
        self._parts = Parts(self.out, self._plan(net, settings), self.ranks)
        self.notes += self._parts.notes
        if self._parts.is_finished:
            return
        self.intake.keep_in(self._parts)
        self.budget = self._parts.settle("budget", self._scorer.budget)
        self.num_rows = self.intake.count_rows()

    def score(self, watch: Watch | None = None) -> None:
        """Score the windows of this rank that have no part yet; the next ones are read while one is scored."""
        if self.parts.is_finished:
            return
        opened: deque[_Window] = deque()
        with self.intake.reader() as reader:
            mine = self._my_windows(reader)
            done = self.count_done()

            def read() -> Window | None:
                nonlocal done
                while (window := self._prepare(reader, mine)) is not None:
                    if window.rendered is None:
                        continue
                    opened.append(window)
                    look, done = self._looker(watch, done, window.num_rows), done + window.num_rows
                    # Memory may have run out before; the packs must be what they are in an undisturbed run.
                    return self.scorer.open_window(window.rendered, budget=self.budget, watch=look)
                return None

            for scored in self.scorer.score_windows(read):
                self._write_window(opened.popleft(), scored)

    def _looker(self, watch: Watch | None, done: int, num_rows: int) -> Callable[[float], None]:
        def look(share: float) -> None:
            if watch:
                watch(self.scorer, done + int(share * num_rows))

        return look

    def _prepare(self, reader: Reader, windows: Iterator[tuple[int, list[Record]]]) -> _Window | None:
        """The next window of this rank, read and rendered; not rendered if its part is there already."""
        number, records = next(windows, (-1, []))
        if number < 0:
            return None
        if self.parts.has(number):
            if self.parts.path(number).is_file():
                self._check_rows(self.parts.read(number)[0]["rows"], records)
            return _Window(number=number, num_rows=len(records))
        rows = [reader.interpret(record) for record in records]
        renderer = self.scorer.renderer
        before = _flat_counts(renderer)
        rendered = self.scorer.render([_named(row) for row in rows if row is not None])
        counts = _flat_counts(renderer) - before
        return _Window(
            number=number, num_rows=len(records), digests=digest_rows(records), is_bad=[row is None for row in rows],
            rendered=rendered, counts=counts,
        )  # fmt: skip

    def _write_window(self, window: _Window, scored: Window) -> None:
        scores = iter(scored.scores)
        lines = [None if is_bad else _to_json(next(scores)) for is_bad in window.is_bad]
        header = {
            "unique_tokens": scored.unique_tokens,
            "total_tokens": scored.total_tokens,
            "rendered": window.counts,
            "rows": window.digests,
        }
        self.parts.write(window.number, [header, *lines])
        if scored.watch:
            scored.watch(1.0)

    def merge(self, *, readings: Mapping[str, Read] | None = None, keeps_dropped: bool = False) -> Summary:
        """Wait for the parts of all ranks, then write the output whole and remove the parts.

        Each of `readings` is a column more, made of the raw scores; with `keeps_dropped` a Group that was left out is a
        row without scores, for those who count on the input's rows.
        """
        summary = Summary()
        joining = _Joining(columns=self.intake.settings.columns, readings=readings or {}, keeps_dropped=keeps_dropped)
        self.parts.sweep()
        self._digests.clear()
        with (
            self._keeping(),
            self.intake.reader(is_last=True) as reader,
            RowWriter(self.out, keeps_nonfinite=True) as writer,
        ):
            number = -1
            for number, records in enumerate(self._windows(reader)):
                if self._num_windows is not None and number >= self._num_windows:
                    self._check_rows("", records)  # no rank has these rows, so nobody would ever score them
                if self.ranks.world > 1:
                    self.parts.wait(number, self.say)
                for row, found in self._read_window(summary, reader, number, records):
                    _join(summary, writer, row, found, joining)
            summary.bad_rows = reader.num_bad
            if reader.num_bad and reader.num_bad == reader.num_read:
                raise DataError(
                    f"all {reader.num_bad:,} rows were bad, at least one good one was needed; check --format"
                )
            self._check_end(number + 1)
            summary.nonfinite = writer.nulled
        # After the block: closing the reader says how many rows it set aside.
        self.notes += [*reader.notes, *self.scorer.notes, *summary.sentences()]
        self.parts.remove()
        return summary

    @property
    def digests(self) -> str:
        """The digests of all rows that were joined with scores."""
        return "".join(self._digests)

    def check_content(self, digests: str, advice: str) -> None:
        """Raise DataError if the rows, read once more, are not those that an earlier job scored."""
        count = 0
        with self.intake.reader() as reader:
            for records in self._windows(reader):
                self._check_rows(digests[count : count + DIGEST * len(records)], records, advice)
                count += DIGEST * len(records)
        if count < len(digests):
            raise self._ended(advice)

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """The time of writing the output: whoever cannot is told that nothing has to be scored again."""
        try:
            yield
        except InputError as error:
            is_table = isinstance(error, DataError) and error.file == self.out and RowWriter(self.out).is_table
            if self.parts.is_passing or (isinstance(error, DataError | ConfigError) and not is_table):
                raise
            stem = Path(self.out).name.partition(".")[0]
            again = f"with -o {Path(self.out).with_name(f'{stem}.jsonl')}" if is_table else "again"
            raise InputError(
                f"{error}; the scores are kept in {self.parts.folder}: run the same command {again} to go on from them"
            ) from None

    def _check_rows(self, kept: str, records: Sequence[Record], advice: str | None = None) -> None:
        """Raise DataError for the first of `records` that is not the row whose digest was kept in its place."""
        found = digest_rows(records)
        if found == kept:
            return
        for at, record in enumerate(records):
            place = slice(at * DIGEST, (at + 1) * DIGEST)
            if found[place] != kept[place]:
                what = "is not the one that was scored" if kept[place] else "was not there when the rows were scored"
                raise DataError(
                    f"this row {what}: the content has changed. {advice or self._advise()}",
                    file=record.file, line=record.line,
                )  # fmt: skip
        raise self._ended(advice)

    def _check_end(self, count: int) -> None:
        """Raise DataError if windows were scored, by this rank or in the end by any, that the rows do not reach."""
        if any(n >= count for n in self.parts.numbers()):
            raise self._ended()

    def _ended(self, advice: str | None = None) -> DataError:
        return DataError(
            f"fewer rows came than were scored: the content has changed. {advice or self._advise()}",
            file=self.intake.sources[-1].name,
        )

    def _advise(self) -> str:
        """What to do about rows that have changed."""
        if self.parts.is_passing:
            return "Run the same command again."
        return (
            "Bring the old content back and run the same command again, or remove "
            f"{self.parts.folder} to score the new content from its first row."
        )

    def _read_window(
        self, summary: Summary, reader: Reader, number: int, records: list[Record]
    ) -> Iterator[tuple[Row, dict[str, Any]]]:
        """The good rows of a window, each with what its part says of it."""
        if not self.parts.path(number).is_file():
            raise InternalError(f"part {number} of {self.out} is not there after scoring")
        header, *found = self.parts.read(number)
        self._check_rows(header["rows"], records)
        self._digests.append(header["rows"])
        summary.unique_tokens += header["unique_tokens"]
        summary.total_tokens += header["total_tokens"]
        summary.rendered.update(header["rendered"])
        for record, scores in zip(records, found, strict=True):
            row = reader.interpret(record)
            if row is not None:
                yield row, scores

    def count_mine(self) -> int | None:
        """Rows of this rank, for the time left; None where counting would cost too much."""
        if self.num_rows is None:
            return None
        return sum(self._size(n) for n in range(-(-self.num_rows // self.scorer.window)) if self.ranks.is_mine(n))

    def count_done(self) -> int:
        """Rows of this rank whose parts are there already."""
        return sum(self._size(n) for n in self.parts.numbers() if self.ranks.is_mine(n))

    def _size(self, number: int) -> int:
        """Rows of a window; the last one may be short."""
        window = self.scorer.window
        return window if self.num_rows is None else max(0, min(window, self.num_rows - number * window))

    def _my_windows(self, reader: Reader) -> Iterator[tuple[int, list[Record]]]:
        """The windows of this rank, each with its number."""
        number = -1
        for number, records in enumerate(self._windows(reader)):
            if self.ranks.is_mine(number):
                yield number, records
        self._num_windows = number + 1
        if self.ranks.world == 1:
            self._check_end(number + 1)

    def _windows(self, reader: Reader) -> Iterator[list[Record]]:
        records = reader.records()
        while window := list(islice(records, self.scorer.window)):
            yield window

    def _plan(self, net: RewardNet, settings: ScoreSettings) -> dict[str, Any]:
        """Everything that the output's bytes depend on; the budget is settled by the first process that plans."""
        bad_rows = self.intake.settings.bad_rows
        return describe_scores(net, settings) | {
            "data": self._data,
            "reading": [self.intake.settings.format, repr(self.intake.settings.columns), bad_rows != "error"],
            "window": self.scorer.window,
        }


def describe_scores(net: RewardNet, settings: ScoreSettings) -> dict[str, Any]:
    """Everything but the data that scores depend on."""
    return {
        "version": [FORMAT_VERSION, __version__],
        "model": _digest_model(net),
        "precision": str(net.dtype),
        "device": net.device.type,
        "backend": net.backend,
        "render": {name: str(value) for name, value in asdict(settings.render).items()},
        "asked": [settings.budget, settings.invariant, settings.share],
        "position": describe_position(net.position, net.tokenizer),
    }


def digest_rows(records: Sequence[Record]) -> str:
    """The rows' digests, one after the other."""
    return b"".join([record.digest for record in records]).hex()


def _named(row: Row) -> Group:
    """The Group with the row's place in its name: an error has to say where."""
    place = f"{row.file}, line {row.line}"
    return replace(row.group, id=place if row.group.id is None else f"{row.group.id} ({place})")


def _flat_counts(renderer: Renderer) -> Counter[str]:
    """The renderer's counts under flat names, so that parts can carry them and sums can be told."""
    flat: Counter[str] = Counter()
    for f in fields(renderer.counts):
        value = getattr(renderer.counts, f.name)
        if isinstance(value, Counter):
            flat.update({f"{f.name}.{reason}": count for reason, count in value.items()})
        else:
            flat[f.name] = value
    return flat


def _to_json(scores: Scores) -> dict[str, Any]:
    return {"scores": scores.scores, "unscored": scores.unscored, "dropped": scores.dropped}


def _join(summary: Summary, writer: RowWriter, row: Row, found: dict[str, Any], joining: _Joining) -> None:
    """The input row with its scores beside it; a dropped Group is counted and left out."""
    if found["dropped"] is not None and not joining.keeps_dropped:
        summary.dropped[found["dropped"]] += 1
        return
    scores, reasons = found["scores"], found["unscored"]
    joined = _clear(summary, row)
    joined["scores"] = scores
    joined |= {column: list(read(row.group, scores)) for column, read in joining.readings.items()}
    columns = joining.columns
    chosen, rejected = (columns and columns.chosen) or "chosen", (columns and columns.rejected) or "rejected"
    if len(scores) == 2 and chosen in row.raw and rejected in row.raw:
        joined |= {"chosen_score": scores[0], "rejected_score": scores[1]}
    if any(reasons) or writer.is_table:
        joined["unscored"] = reasons if any(reasons) else None
    writer.write(joined)
    summary.rows += 1
    summary.completions += len(scores)
    summary.scored += sum(score is not None for score in scores)
    # "too long: 613 tokens": what is counted is the kind, the row itself has the number.
    summary.unscored.update(reason.partition(": ")[0] for reason in reasons if reason)


def _clear(summary: Summary, row: Row) -> Raw:
    """The row without columns of the names that scoring writes, and with its ratings where the next reader finds them.

    A native row without labels gains an empty list of them: `scores` alone beside its completions would be its ratings.
    """
    cleared = {name: value for name, value in row.raw.items() if name not in FRESH_SCORES}
    came = {name for name in FRESH_SCORES if row.raw.get(name) is not None}
    if row.dialect.is_rated and "scores" in came and row.raw.get(GOLD_SCORES) is None:
        cleared[GOLD_SCORES] = row.raw["scores"]
        came.discard("scores")
        summary.gold += 1
    elif row.dialect is scored.DIALECT and row.raw.get(GOLD_SCORES) is None:
        # The row was not rated. Without this column its new `scores` would be read as its ratings.
        cleared[GOLD_SCORES] = [None] * len(row.group.completions)
    elif row.dialect is native.DIALECT and row.raw.get("labels") is None:
        cleared["labels"] = []
    summary.replaced += bool(came)
    return cleared


def _digest_model(net: RewardNet) -> list[str]:
    """Names, sizes and times of the model's files, an adapter's base among them: enough to notice another model."""
    folder = net.checkpoint.folder
    files = {p for p in folder.iterdir() if p.is_file() and p.name != CARD}
    files |= {p for p, _ in net.checkpoint.tensors.values()}
    # What was found out about the model afterwards is stored in its card, and changes no score.
    card = json.dumps(forget_findings(read_card(folder)), sort_keys=True)
    return [card, *(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in sorted(files))]
