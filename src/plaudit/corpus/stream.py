"""Settings -> a Corpus that is read while it is trained on: memory holds the first Groups, a buffer, and no more.

Part of `corpus`, beside `whole`. What a Corpus knows before training, a stream learns from the first Groups of each
part; what it cannot know, it decides as the Groups come: a Group that shares a prompt with evaluation data is left out
where a Corpus would refuse. Invariant: one seed and epoch give one stream, whichever part is listed first, and a weight
takes the same Groups in every epoch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from plaudit.corpus.findings import find_uncertainty
from plaudit.corpus.lengths import estimate_rows
from plaudit.corpus.mixture import Split, find_overlaps, judge_overlaps
from plaudit.corpus.reading import PartReader, digest_part
from plaudit.corpus.settings import MADE, CorpusSettings
from plaudit.corpus.sift import Sieve, Sifted, Tally, count_of
from plaudit.corpus.whole import (
    Book,
    Portion,
    examine,
    find_emptiness,
    make_split,
    open_parts,
    read_evals,
    refuse_nothing,
)
from plaudit.errors import DataError
from plaudit.formats.sources import Source
from plaudit.group import Group
from plaudit.keys import Key, draw_lot
from plaudit.surface import SurfaceReport

HELD_OUT = "its prompt is one of the evaluation data"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lane:
    """A part, and how many Groups it is expected to give: parts are mixed so that all of them end together."""

    reader: PartReader
    expected: float


class CorpusStream:
    """What to train on, a Group at a time, and what to measure on. Made by `stream_corpus`."""

    def __init__(
        self, settings: CorpusSettings, lanes: Sequence[Lane], evals: dict[str, list[Sifted]], split: Split
    ) -> None:
        self.evals: dict[str, list[Group]] = {name: [one.group for one in sifted] for name, sifted in evals.items()}
        self.notes: list[str] = []
        self.alarms: list[str] = []
        self.digests: dict[str, str] = {}
        self.surface: dict[str, SurfaceReport] = {}
        self._settings, self._split = settings, split
        # By name, so that it does not matter which one was listed first.
        self._lanes = sorted(lanes, key=lambda lane: lane.reader.name)
        self._tallies: dict[str, Tally] = {}

    def open(self, epoch: int = 0) -> Iterator[Group]:
        """All Groups once, shuffled; another order in every epoch."""
        rng = random.Random(f"{self._settings.seed} {epoch}")
        flows = [(self._flow(lane, epoch), lane.expected) for lane in self._lanes]
        count = 0
        for group in shuffle(interleave(flows), self._settings.buffer, rng):
            count += 1
            yield group
        if not count:
            told = "; ".join(sentence for name, tally in self._tallies.items() for sentence in tally.sentences(name))
            raise DataError(f"no group is left to learn from: {told}")

    def sentences(self) -> list[str]:
        """What became of the Groups of the latest pass, as far as it got, and what was said since it began."""
        said = [
            f"{name}: {count_of(tally.read, 'group')} read, {tally.taken:,} taken"
            for name, tally in self._tallies.items()
        ]
        said += [sentence for name, tally in self._tallies.items() for sentence in tally.sentences(name)]
        readers = [lane.reader for lane in self._lanes]
        return said + [note for reader in readers for note in (*reader.notes, *reader.alarms) if note not in self.notes]

    def _flow(self, lane: Lane, epoch: int) -> Iterator[Group]:
        """The Groups of one part, as often as its weight says."""
        reader, sieve = lane.reader, Sieve(self._settings)
        self._tallies[reader.name] = sieve.tally
        # Bad rows are the same in every pass: they are written down by the first.
        for group in reader.read(places=order_places(reader, self._settings.seed, epoch), keeps_bad=epoch == 0):
            one = sieve.take(group)
            if one is None:
                continue
            if self._split.holds(one):
                sieve.tally.left_out[HELD_OUT] += 1
                sieve.tally.taken -= 1
                continue
            for _ in range(count_copies(one, reader.part.weight, self._settings.seed)):
                yield one.group


def order_places(reader: PartReader, seed: int, epoch: int) -> list[Source] | None:
    """The files of a part by lot; None where there is one, or where a limit says that it is the first rows."""
    if len(reader.sources) < 2 or reader.part.limit is not None:
        return None
    number = epoch.to_bytes(8, "little")
    return sorted(reader.sources, key=lambda source: draw_lot(seed, "files", source.place.encode(), number))


def count_copies(one: Sifted, weight: float, seed: int) -> int:
    """How often a Group comes: the whole part of the weight, and once more by lot for the rest."""
    whole = int(weight)
    return whole + (draw_lot(seed, "share", one.key) < (weight - whole) * 2**64)


def interleave(flows: Sequence[tuple[Iterator[Group], float]]) -> Iterator[Group]:
    """Always the flow that is least far, as shares of what is expected of each, until all have ended."""
    given = [0] * len(flows)
    running = list(range(len(flows)))
    while running:
        n = min(running, key=lambda n: (given[n] + 0.5) / flows[n][1])
        group = next(flows[n][0], None)
        if group is None:
            running.remove(n)
            continue
        given[n] += 1
        yield group


def shuffle(groups: Iterator[Group], size: int, rng: random.Random) -> Iterator[Group]:
    """Each Group in place of one drawn from the buffer, and at the end what is left there."""
    buffer = list(islice(groups, size))
    for group in groups:
        n = rng.randrange(len(buffer))
        yield buffer[n]
        buffer[n] = group
    rng.shuffle(buffer)
    yield from buffer


def stream_corpus(settings: CorpusSettings) -> CorpusStream:
    """The evaluation data in memory, and the training data to be read as they are needed, looked at at their heads."""
    book = Book()
    readers, eval_readers = open_parts(settings.parts), open_parts(settings.evals)
    portions = [read_head(reader, settings, settings.head // len(readers) + 1, book) for reader in readers]
    refuse_nothing([portion for portion, _ in portions], settings)
    evals = {portion.name: portion for portion in read_evals(eval_readers, settings, book)}
    heads = [portion for portion, _ in portions]
    book.add(tell_stream(heads, settings), (alarm for portion in heads for alarm in find_emptiness(portion)))
    surface = examine(heads, settings, book) if settings.checks else {}
    for portion in heads:
        weight = min(portion.part.weight, 1.0)
        portion.sifted = [one for one in portion.sifted if count_copies(one, weight, settings.seed)]
    sets, split = hold_out(heads, {name: portion.sifted for name, portion in evals.items()}, settings, book)
    book.add(sentence for name, sifted in sets.items() for sentence in find_uncertainty(sifted, name))
    stream = CorpusStream(settings, plan_lanes(readers, portions, book), sets, split)
    stream.notes, stream.alarms, stream.surface = book.notes, book.alarms, surface
    for portion in (*heads, *evals.values()):
        stream.digests |= portion.digests
    return stream


def read_head(reader: PartReader, settings: CorpusSettings, size: int, book: Book) -> tuple[Portion, bool]:
    """The first Groups of a part, and whether these are all."""
    sieve, sifted, is_all = Sieve(settings), [], False
    groups = reader.read(keeps_bad=False)
    while sieve.tally.read < size:
        group = next(groups, None)
        if group is None:
            is_all = True
            break
        one = sieve.take(group)
        if one is not None:
            sifted.append(one)
    book.add([*reader.notes, *sieve.tally.sentences(f"{reader.name} (first groups)")], reader.alarms)
    digests = digest_part(reader, None)
    return Portion(name=reader.name, part=reader.part, tally=sieve.tally, sifted=sifted, digests=digests), is_all


def tell_stream(heads: Sequence[Portion], settings: CorpusSettings) -> list[str]:
    """What a stream is."""
    looked_at = sum(portion.tally.read for portion in heads)
    return [
        f"training data are streamed: {count_of(looked_at, 'group')} at the beginning were looked at, and order is "
        f"shuffled among {settings.buffer:,}; what is further on is checked as it comes"
    ]


def hold_out(
    heads: Sequence[Portion], evals: dict[str, list[Sifted]], settings: CorpusSettings, book: Book
) -> tuple[dict[str, list[Sifted]], Split]:
    """The evaluation sets, and the prompts that must not come in training."""
    nothing = Split(keys=frozenset[Key](), by="prompt")
    if evals:
        keys = frozenset(one.prompt for sifted in evals.values() for one in sifted)
        overlaps = find_overlaps((one for portion in heads for one in portion.sifted), evals)
        if settings.force_overlap:
            book.add(*judge_overlaps(overlaps, is_forced=True))
            return evals, nothing
        book.add(
            "evaluation data share prompts with training data, and groups with these prompts are left out of training "
            f"as they come; at its beginning: {overlap.sentence()}"
            for overlap in overlaps
            if overlap.num_shared
        )
        return evals, Split(keys=keys, by="prompt")
    split = make_split(heads, settings, book)
    if split is None:
        return {}, nothing
    return {MADE: [one for portion in heads for one in portion.sifted if split.holds(one)]}, split


def plan_lanes(readers: Sequence[PartReader], heads: Sequence[tuple[Portion, bool]], book: Book) -> list[Lane]:
    """How many Groups each part will give, about: as counted, as guessed from its size, or as many as the others."""
    rows: list[float | None] = []
    for reader, (portion, is_all) in zip(readers, heads, strict=True):
        guess = float(portion.tally.read) if is_all else estimate_rows(reader.sources)
        rows.append(guess if guess is None else min(guess, reader.part.limit or guess))
    known = [guess for guess in rows if guess is not None]
    usual = sum(known) / len(known) if known else 1.0
    unknown = [reader.name for reader, guess in zip(readers, rows, strict=True) if guess is None]
    if unknown and len(readers) > 1:
        book.add(
            [f"how long {', '.join(sorted(unknown))} may be is not known: mixed as if as long as the other data are"]
        )
    lanes = []
    for reader, guess, (portion, _) in zip(readers, rows, heads, strict=True):
        taken = portion.tally.taken / max(portion.tally.read, 1)
        expected = (usual if guess is None else guess) * max(taken, 1e-3) * reader.part.weight
        lanes.append(Lane(reader=reader, expected=expected))
    return lanes
