"""Whether a model has seen in training what it is measured on: prompts, and runs of words, by their hashes.

Stands on `formats` and `keys`; numpy, no torch. Training leaves a record beside the model: a number for every prompt
that it was given, and one for every run of 13 words in prompts and completions. Both are kept up to a size, above which
those of small hashes stay: then they are a sample, of known share, that is the same sample on the other side. Runs of
words go across case, white space and punctuation. Invariant: the same Groups give the same record in whatever order
they came, and a record holds no text.
Letters: W words of a text, N runs.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from plaudit.errors import DataError
from plaudit.files import write_file
from plaudit.formats import read_groups
from plaudit.group import Content, Group
from plaudit.keys import prompt_key, show_prompt, turn_text

Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

FILE = "seen.npz"
"""A run's record, in its folder, beside the model's."""

RUN_OF = 13
MOST = 4_000_000
"""Hashes of one kind that are kept: 32 MB, all runs of about 10,000 pairs of 200 words."""

FLAGGED = 0.5
"""A text of which half the runs were seen was seen: fewer are turns of phrase that everyone uses."""

FEWEST_RUNS = 4
"""Of a short text, half is one run or two: fewer than this flag only where they are all."""

MOST_EXAMPLES, MOST_WORDS = 5, 40
_FULL = 2**64
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A word; where words are not set apart, a character."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SeenData:
    """What training was given, as sorted hashes; `..._below` is the bound under which all hashes were kept."""

    groups: int
    prompts: Hashes
    prompts_below: int
    runs: Hashes
    runs_below: int
    source: str = ""

    @property
    def share(self) -> float:
        """The share of runs of words that were kept."""
        return self.runs_below / _FULL

    def write(self, folder: Path) -> dict[str, Any]:
        """Leave the record in a run's folder; gives what the model's card says of it."""
        buffer = io.BytesIO()
        bounds = np.array([self.groups, self.prompts_below - 1, self.runs_below - 1], dtype=np.uint64)
        np.savez(buffer, prompts=self.prompts, runs=self.runs, bounds=bounds)
        write_file(folder / FILE, buffer.getvalue())
        return {
            "file": FILE, "groups": self.groups, "prompts": len(self.prompts), "runs": len(self.runs), "run_of": RUN_OF,
            "share": self.share,
        }  # fmt: skip


class Sketch:
    """A set of hashes that keeps all below a bound, and halves the bound when it grows over its size."""

    def __init__(self, most: int) -> None:
        self.below, self._most = _FULL, most
        self._settled = np.empty(0, dtype=np.uint64)
        self._fresh: list[Hashes] = []
        self._num_fresh = 0

    def add(self, hashes: Hashes) -> None:
        """More of them."""
        kept = keep_below(hashes, self.below)
        self._fresh.append(kept)
        self._num_fresh += len(kept)
        if self._num_fresh > self._most:
            self.settle()

    def settle(self) -> Hashes:
        """All that are kept, sorted, each once."""
        if self._fresh:
            self._settled = np.unique(np.concatenate([self._settled, *self._fresh]))
            self._fresh, self._num_fresh = [], 0
        while len(self._settled) > self._most:
            self.below //= 2
            self._settled = keep_below(self._settled, self.below)
        return self._settled


def keep_below(hashes: Hashes, below: int) -> Hashes:
    """Those under the bound."""
    return hashes[is_below(hashes, below)]


def is_below(hashes: Hashes, below: int) -> Bools:
    """Which of them are under the bound; all, if it is none."""
    return np.ones(len(hashes), dtype=bool) if below == _FULL else np.asarray(hashes < np.uint64(below))


def texts_of(group: Group) -> Iterator[str]:
    """Prompt and completions, each as one text."""
    yield text_of(group.prompt)
    for completion in group.completions:
        yield text_of(completion.content)


def text_of(content: Content) -> str:
    """The words of a prompt or a completion."""
    return content if isinstance(content, str) else "\n".join(turn_text(turn) for turn in content)


def hash_prompt(group: Group) -> int:
    """A prompt's number."""
    return int.from_bytes(prompt_key(group)[:8], "little")


_WORDS: dict[str, int] = {}
"""Words whose number was needed before: most of a text's."""

MOST_KNOWN = 1_000_000


def hash_word(word: str) -> int:
    """A word's number, the same at every time and on every machine."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    found = _WORDS[word] = int.from_bytes(digest, "little")
    return found


def hash_runs(text: str) -> Hashes:
    """The number of each run of 13 words, in order; none of a shorter text."""
    words = _WORD.findall(text.casefold())
    num = len(words) - RUN_OF + 1
    if num < 1:
        return np.empty(0, dtype=np.uint64)
    if len(_WORDS) > MOST_KNOWN:
        _WORDS.clear()
    known = _WORDS.get
    word_W = np.array([known(word) or hash_word(word) for word in words], dtype=np.uint64)
    run_N = np.zeros(num, dtype=np.uint64)
    for at in range(RUN_OF):
        run_N = run_N * _STEP + word_W[at : at + num]
    # Mixed, so that small numbers are a fair sample.
    run_N = (run_N ^ (run_N >> np.uint64(30))) * _MIX[0]
    run_N = (run_N ^ (run_N >> np.uint64(27))) * _MIX[1]
    return np.asarray(run_N ^ (run_N >> np.uint64(31)))


def build_seen(groups: Iterable[Group], *, source: str = "", most: int = MOST) -> SeenData:
    """The record of Groups: those a run was given, or those of files that a model is checked against.

    Memory is bounded, however many Groups come.
    """
    prompts, runs, count = Sketch(most), Sketch(most), 0
    texts: set[int] = set()
    for group in groups:
        count += 1
        prompts.add(np.array([hash_prompt(group)], dtype=np.uint64))
        for text in texts_of(group):
            # Pairs of one prompt repeat it, and often an answer: what was cut into words once need not be again.
            number = hash(text)
            if number not in texts:
                texts.add(number)
                runs.add(hash_runs(text))
        if len(texts) > MOST_KNOWN:
            texts.clear()
    return SeenData(
        groups=count, prompts=prompts.settle(), prompts_below=prompts.below, runs=runs.settle(), runs_below=runs.below,
        source=source,
    )  # fmt: skip


def find_seen(model: str | Path) -> Path | None:
    """The record of the run that a model's folder lies in, if there is one."""
    folder = Path(model).expanduser()
    places = (folder / FILE, folder.resolve().parent / FILE) if folder.is_dir() else ()
    return next((place for place in places if place.is_file()), None)


def read_seen(path: Path) -> SeenData:
    """A record that a run has left."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            groups, prompts_top, runs_top = (int(number) for number in found["bounds"])
            prompts, runs = found["prompts"], found["runs"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(
            f"it is no record of training data ({error}); remove it, or name the data", file=str(path)
        ) from None
    return SeenData(
        groups=groups, prompts=prompts, prompts_below=prompts_top + 1, runs=runs, runs_below=runs_top + 1,
        source=str(path),
    )  # fmt: skip


def open_seen(model: str | Path, against: Sequence[str] = ()) -> SeenData | None:
    """What a model is checked against: the data that are named, or else the record of its run, if there is one."""
    if against:
        return build_seen(read_groups(list(against)), source=", ".join(against))
    place = find_seen(model)
    return read_seen(place) if place is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contamination:
    """How many of the Groups that a model is measured on it was given in training.

    `flagged` are those whose prompt was there, or of which a text was, by half its runs of words or more; `touched`
    those that share at least one run. `is_flagged` says it of each Group in turn.
    """

    source: str
    seen_groups: int
    share: float
    groups: int
    same_prompt: int
    same_text: int
    flagged: int
    touched: int
    by_subset: dict[str, dict[str, int]]
    examples: tuple[dict[str, Any], ...]
    is_flagged: tuple[bool, ...]

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "source": self.source, "seen_groups": self.seen_groups, "run_of": RUN_OF, "share": self.share,
            "groups": self.groups, "same_prompt": self.same_prompt, "same_text": self.same_text,
            "flagged": self.flagged, "touched": self.touched, "by_subset": self.by_subset,
            "examples": list(self.examples), "sentence": self.sentence(),
        }  # fmt: skip

    def sentence(self) -> str:
        """The finding, for a person."""
        sampled = "" if self.share == 1 else f" (of which 1 in {round(1 / self.share)} is on record)"
        if not self.flagged and not self.touched:
            return (
                f"none of {self.groups:,} groups shares a prompt or {RUN_OF} words in a row{sampled} with {self.source}"
            )
        return (
            f"{self.flagged:,} of {self.groups:,} groups were in {self.source}: {self.same_prompt:,} by their prompt, "
            f"{self.same_text:,} by half or more of a text's runs of {RUN_OF} words{sampled}; {self.touched:,} share "
            "at least one such run"
        )


@dataclass(kw_only=True, slots=True)
class Finding:
    """What one Group has in common with training."""

    same_prompt: bool
    share: float
    text: str
    touched: bool
    words: str = ""
    is_same: bool = False


@dataclass(kw_only=True)
class ContaminationCheck:
    """Holds Groups against a record, one by one; memory is a bit a Group and a few examples."""

    seen: SeenData
    _flags: list[bool] = field(default_factory=list)
    _same_prompt: int = 0
    _same_text: int = 0
    _touched: int = 0
    _subsets: dict[str, dict[str, int]] = field(default_factory=dict)
    _examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, group: Group) -> None:
        """One Group that a model is measured on."""
        found = find_overlap(group, self.seen)
        same_text = found.is_same
        self._flags.append(found.same_prompt or same_text)
        self._same_prompt += found.same_prompt
        self._same_text += same_text
        self._touched += found.touched
        subset = self._subsets.setdefault(group.subset or "", {"groups": 0, "flagged": 0})
        subset["groups"] += 1
        subset["flagged"] += self._flags[-1]
        if self._flags[-1] and len(self._examples) < MOST_EXAMPLES:
            self._examples.append(
                {
                    "id": group.id,
                    "prompt": show_prompt(group),
                    "same_prompt": found.same_prompt,
                    "text": found.text,
                    "share": round(found.share, 4),
                    "words": found.words,
                }
            )

    def finish(self) -> Contamination:
        """The counts."""
        return Contamination(
            source=self.seen.source or "the training data", seen_groups=self.seen.groups, share=self.seen.share,
            groups=len(self._flags), same_prompt=self._same_prompt, same_text=self._same_text,
            flagged=sum(self._flags), touched=self._touched, by_subset=self._subsets,
            examples=tuple(self._examples), is_flagged=tuple(self._flags),
        )  # fmt: skip


def check_contamination(groups: Iterable[Group], seen: SeenData) -> Contamination:
    """Groups that a model is measured on, against what it was given."""
    check = ContaminationCheck(seen=seen)
    for group in groups:
        check.add(group)
    return check.finish()


def find_overlap(group: Group, seen: SeenData) -> Finding:
    """The prompt, and the text that has most in common with what was seen; with the longest stretch of it."""
    number = np.array([hash_prompt(group)], dtype=np.uint64)
    best = Finding(same_prompt=bool(is_in(number, seen.prompts)[0]), share=0.0, text="", touched=False)
    for place, text in enumerate(texts_of(group)):
        run_N = hash_runs(text)
        known_N = is_below(run_N, seen.runs_below)
        if not known_N.any():
            continue
        hit_N = known_N & is_in(run_N, seen.runs)
        share = float(hit_N.sum() / known_N.sum())
        best.touched |= share > 0
        best.is_same |= share == 1 or (share >= FLAGGED and int(hit_N.sum()) >= FEWEST_RUNS)
        if share > best.share:
            best.share, best.text = share, "prompt" if place == 0 else f"completion {place - 1}"
            best.words = show_stretch(text, np.flatnonzero(hit_N))
    return best


def is_in(hashes: Hashes, known: Hashes) -> Bools:
    """Which of them are among the sorted ones."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.asarray(known[place] == hashes)


def show_stretch(text: str, hits: Sequence[int] | npt.NDArray[np.intp]) -> str:
    """The longest stretch of words whose runs overlap, cut to what fits on a page."""
    spans = [match.span() for match in _WORD.finditer(text.casefold())]
    stretches: list[list[int]] = []
    for at in hits:
        if stretches and at < stretches[-1][1]:
            stretches[-1][1] = int(at) + RUN_OF
        else:
            stretches.append([int(at), int(at) + RUN_OF])
    first, last = max(stretches, key=lambda one: one[1] - one[0])
    words = [text.casefold()[start:end] for start, end in spans[first : min(last, first + MOST_WORDS)]]
    return " ".join(words) + (" …" if last - first > MOST_WORDS else "")
