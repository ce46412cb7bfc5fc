"""Files in, the same rows with scores out: a long job that can be killed at any moment and goes on where it was.

Stands on `score` and `formats`. Rows are cut into windows; each window's scores are one part file, moved into place
when whole, in a folder named after a hash of the plan (model, data, settings). Ranks take turns at windows, so any
number of processes and nodes that share a disk work on one plan. When all parts are there, rank 0 reads the rows once
more, joins them with their scores in input order, and moves the output into place.

Invariant: the output is a function of the plan alone: killed and resumed, on one rank or many, it is the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from plaudit.errors import InternalError
from plaudit.formats import Columns, Reader, Record, Row, RowWriter
from plaudit.model import RewardNet
from plaudit.render import RenderCounts, Rendered, Renderer
from plaudit.score import Scorer, Scores, ScoreSettings

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """How rows are read: see `formats.Reader`."""

    format: str | None = None
    columns: Columns | None = None
    bad_rows: str = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Which of how many processes this is; torchrun says so in the environment."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """RANK and WORLD_SIZE, or one process."""
        return cls(rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")))


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a scoring job did; counts cover the whole output, resumed parts included."""

    rows: int = 0
    completions: int = 0
    scored: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    rendered: Counter[str] = field(default_factory=Counter)

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
            "unique_tokens": self.unique_tokens,
            "total_tokens": self.total_tokens,
            "sharing": self.sharing,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """Rows that are committed together; without `rendered` they were committed before."""

    number: int
    num_rows: int
    is_bad: list[bool] = field(default_factory=list)
    rendered: list[Rendered] | None = None
    counts: Counter[str] = field(default_factory=Counter)


Watch = Callable[[Scorer, int], None]
"""Called after each window with the scorer and the rows that are done."""


class ScoreJob:
    """Scores of `sources` into `out`. `score()` does this rank's share; `merge()` joins the parts, on rank 0."""

    def __init__(
        self,
        net: RewardNet,
        sources: list[str],
        out: str,
        *,
        settings: ScoreSettings,
        reading: ReadSettings,
        ranks: Ranks | None = None,
    ) -> None:
        self.scorer = Scorer(net, settings)
        self.out, self.reading, self.ranks = out, reading, ranks or Ranks.from_environment()
        self.notes: list[str] = []
        self._spool: Path | None = None
        self.sources = self._spool_stdin(sources)
        self.plan = self._plan(net, settings)
        self.folder = self._open_folder()

    def score(self, watch: Watch | None = None) -> None:
        """Score the windows of this rank that have no part yet; the next window is rendered while one is scored."""
        done = 0
        with (
            self._reader(aside=self.folder / f"bad-{self.ranks.rank}.jsonl") as reader,
            ThreadPoolExecutor(1, "render") as ahead,
        ):
            mine = (w for w in enumerate(self._windows(reader)) if w[0] % self.ranks.world == self.ranks.rank)
            coming = ahead.submit(self._prepare, reader, mine)
            while (window := coming.result()) is not None:
                coming = ahead.submit(self._prepare, reader, mine)
                if window.rendered is not None:
                    self._write_part(window)
                done += window.num_rows
                if watch:
                    watch(self.scorer, done)

    def _prepare(self, reader: Reader, windows: Iterator[tuple[int, list[Record]]]) -> _Window | None:
        """The next window of this rank, read and rendered; not rendered if its part is there already."""
        number, records = next(windows, (-1, []))
        if number < 0:
            return None
        if self._part(number).is_file():
            return _Window(number=number, num_rows=len(records))
        rows = [reader.interpret(record) for record in records]
        before = _flat_counts(self.scorer.renderer)
        rendered = self.scorer.renderer.render([row.group for row in rows if row is not None])
        counts = _flat_counts(self.scorer.renderer) - before
        is_bad = [row is None for row in rows]
        return _Window(number=number, num_rows=len(records), is_bad=is_bad, rendered=rendered, counts=counts)

    def merge(self, *, wait_s: float = 1.0) -> Summary:
        """Wait for the parts of all ranks, then write the output whole and remove the parts."""
        summary = Summary()
        with self._reader(aside=None) as reader, RowWriter(self.out) as writer:
            for number, records in enumerate(self._windows(reader)):
                part = self._part(number)
                while not part.is_file():
                    if self.ranks.world == 1:
                        raise InternalError(f"part {part.name} of {self.out} is not there after scoring")
                    time.sleep(wait_s)
                header, *found = (json.loads(line) for line in part.read_text(encoding="utf-8").splitlines())
                summary.unique_tokens += header["unique_tokens"]
                summary.total_tokens += header["total_tokens"]
                summary.rendered.update(header["rendered"])
                for record, scores in zip(records, found, strict=True):
                    row = reader.interpret(record)
                    if row is not None:
                        _join(summary, writer, row, scores, self.reading.columns)
            summary.bad_rows = reader.num_bad
            self.notes += [*reader.notes, *self.scorer.notes, *_sentences(summary)]
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._spool:
            self._spool.unlink(missing_ok=True)
        return summary

    def count_rows(self) -> int | None:
        """Rows of this rank, for the time left; None where counting would mean another download."""
        if not all(Path(source).is_file() for source in self.sources):
            return None
        with self._reader(aside=self.folder / "bad-counted.jsonl") as reader:
            return sum(len(w) for n, w in enumerate(self._windows(reader)) if n % self.ranks.world == self.ranks.rank)

    def count_done(self) -> int:
        """Rows of this rank whose parts are there already, to within the last window."""
        numbers = (int(part.stem.removeprefix("part-")) for part in self.folder.glob("part-*.jsonl"))
        return self.scorer.window * sum(number % self.ranks.world == self.ranks.rank for number in numbers)

    def _windows(self, reader: Reader) -> Iterator[list[Record]]:
        records = reader.records()
        while window := list(islice(records, self.plan["window"])):
            yield window

    def _reader(self, *, aside: Path | None) -> Reader:
        """Scoring sets bad rows aside in the job's folder; the merge writes the user's file, once and whole."""
        bad_rows = self.reading.bad_rows
        if aside is not None and bad_rows != "error":
            bad_rows = f"skip={aside}"
        return Reader(self.sources, format=self.reading.format, columns=self.reading.columns, bad_rows=bad_rows)

    def _write_part(self, window: _Window) -> None:
        tally = self.scorer.tally
        unique, total = tally.unique_tokens, tally.total_tokens
        scored = iter(self.scorer.score_rendered(window.rendered or []))
        lines = [None if is_bad else _to_json(next(scored)) for is_bad in window.is_bad]
        header = {
            "unique_tokens": tally.unique_tokens - unique,
            "total_tokens": tally.total_tokens - total,
            "rendered": window.counts,
        }
        text = "".join(json.dumps(line) + "\n" for line in (header, *lines))
        part = self._part(window.number)
        draft = part.with_name(f"{part.name}.{self.ranks.rank}.writing")
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(part)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.jsonl"

    def _spool_stdin(self, sources: list[str]) -> list[str]:
        """Rows are read twice, to score and to join; what comes through a pipe is kept in a file until then."""
        if "-" not in sources:
            return sources
        with tempfile.NamedTemporaryFile("wb", prefix="plaudit-stdin-", suffix=".jsonl", delete=False) as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        self._spool = Path(stream.name)
        return [stream.name if source == "-" else source for source in sources]

    def _plan(self, net: RewardNet, settings: ScoreSettings) -> dict[str, Any]:
        """Everything that the output's bytes depend on; the budget is settled by the first process that plans."""
        return {
            "version": FORMAT_VERSION,
            "model": _digest_folder(net.checkpoint.folder),
            "precision": str(net.dtype),
            "device": net.device.type,
            "backend": net.backend,
            "data": [_digest_source(source) for source in self.sources],
            "reading": {
                "format": self.reading.format,
                "columns": repr(self.reading.columns),
                "bad": self.reading.bad_rows != "error",
            },
            "render": {name: str(value) for name, value in asdict(settings.render).items()},
            "asked": [settings.budget, settings.window, settings.invariant, settings.share],
            "window": self.scorer.window,
        }

    def _open_folder(self) -> Path:
        """The plan's folder beside the output; folders of other plans for it are removed, and that is said."""
        name = hashlib.sha256(json.dumps(self.plan, sort_keys=True).encode()).hexdigest()[:16]
        if self.out == "-":
            return Path(tempfile.mkdtemp(prefix="plaudit-parts-"))
        target = Path(self.out)
        folder = target.with_name(f".{target.name}.parts-{name}")
        others = [p for p in target.parent.glob(f".{target.name}.parts-*") if p != folder]
        if others and self.ranks.rank == 0:
            self.notes.append(f"{target.name}: parts of another plan (model, data or settings changed) were removed")
            for other in others:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.scorer.budget = _settle(folder / "budget", self.scorer.budget)
        return folder


def _settle(file: Path, mine: int) -> int:
    """The number that the first process wrote; every rank and every resumed run uses the same one."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.writing")
    draft.write_text(str(mine), encoding="ascii")
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return int(file.read_text(encoding="ascii"))


def _flat_counts(renderer: Renderer) -> Counter[str]:
    """The renderer's counts under flat names, so that parts can carry them and sums can be told."""
    flat: Counter[str] = Counter()
    for name, value in asdict(renderer.counts).items():
        if isinstance(value, dict):
            flat.update({f"{name}.{reason}": count for reason, count in value.items()})
        else:
            flat[name] = value
    return flat


def _sentences(summary: Summary) -> list[str]:
    """What rendering did, over all parts."""
    counts = RenderCounts()
    for name, value in summary.rendered.items():
        field_name, _, reason = name.partition(".")
        if reason:
            getattr(counts, field_name)[reason] += value
        else:
            setattr(counts, field_name, value)
    return counts.sentences()


def _to_json(scores: Scores) -> dict[str, Any]:
    return {"scores": scores.scores, "unscored": scores.unscored, "dropped": scores.dropped}


def _join(summary: Summary, writer: RowWriter, row: Row, found: dict[str, Any], columns: Columns | None) -> None:
    """The input row with its scores beside it; a dropped Group is counted and left out."""
    if found["dropped"] is not None:
        summary.dropped[found["dropped"]] += 1
        return
    scores, reasons = found["scores"], found["unscored"]
    joined = {**row.raw, "scores": scores}
    chosen, rejected = (columns and columns.chosen) or "chosen", (columns and columns.rejected) or "rejected"
    if len(scores) == 2 and chosen in row.raw and rejected in row.raw:
        joined |= {"chosen_score": scores[0], "rejected_score": scores[1]}
    joined.pop("unscored", None)
    if any(reasons):
        joined["unscored"] = reasons
    writer.write(joined)
    summary.rows += 1
    summary.completions += len(scores)
    summary.scored += sum(score is not None for score in scores)
    summary.unscored.update(reason for reason in reasons if reason)


def _digest_folder(folder: Path) -> list[str]:
    """Names, sizes and times of the model's files: enough to notice another model under the same name."""
    return [f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in sorted(folder.iterdir()) if p.is_file()]


def _digest_source(source: str) -> str:
    """A local file by size, time and its two ends; anything else by name."""
    path = Path(source)
    if not path.is_file():
        return source
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        digest.update(stream.read(1 << 20))
        stream.seek(max(0, size - (1 << 20)))
        digest.update(stream.read())
    return f"{source}:{size}:{path.stat().st_mtime_ns}:{digest.hexdigest()}"
