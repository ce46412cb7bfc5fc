"""Groups and their scores as columns: what every measure reads, gathered in one pass.

Third file of `measure`; stands on `group`, `keys` and `surface`. A `TableBuilder` takes Groups as they are scored and
lets go of their texts; what stays is a few numbers a completion, which words it uses, and the texts of the worst
mistakes. Invariant: a completion without a score is there, with nan for its score, so nothing that was asked for is
missing from a count.
Letters: N completions, C comparisons, G groups, W words (of all completions, one after the other).
"""

from __future__ import annotations

import heapq
import math
import string
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plaudit.errors import InputError
from plaudit.group import Comparison, Content, Group, Ratings
from plaudit.keys import prompt_key, turn_text
from plaudit.measure.intervals import Bools, Floats, Ints
from plaudit.measure.record import Record
from plaudit.surface import count_bold, count_headings, count_list_items, settle

Scores = Sequence[float | None]

WORD_CODES = 2**16
"""Words are told apart by a hash of this many values; two bytes a word."""

MOST_TEXT = 4_000
"""Characters of a text that are kept of a mistake."""

_MARK_CODES = tuple((mark, zlib.crc32(mark.encode()) % WORD_CODES) for mark in string.punctuation)
_SPACED = bytes(b if b >= 128 or chr(b).isalnum() else 32 for b in range(256))
_MOST_REMEMBERED = 500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake(Record):
    """A comparison that the scores have the wrong way round, with its texts; long ones are cut, and say so."""

    prompt: str
    better: str
    worse: str
    score_better: float
    score_worse: float
    subset: str
    id: str | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """Completions, Groups and settled comparisons as columns; completions of a Group stand together, in their order.

    `score_N` is nan where there is no score, `tokens_N` and `rating_N` where it is not known; `prompt_G` numbers
    prompts: Groups of one prompt share it. Of two completions that were compared there is one comparison, whatever the
    number of labels: `is_tie_C` where they are even. `word_W[word_start_N[n]:word_start_N[n + 1]]` are the codes of
    the words of completion n, each once.
    """

    score_N: Floats
    length_N: Ints
    tokens_N: Floats
    rating_N: Floats
    lists_N: Ints
    headings_N: Ints
    bold_N: Ints
    group_N: Ints
    word_start_N: Ints
    word_W: npt.NDArray[np.uint16]
    start_G: Ints
    prompt_G: Ints
    subset_G: Ints
    id_G: tuple[str | None, ...]
    subsets: tuple[str, ...]
    better_C: Ints
    worse_C: Ints
    is_tie_C: Bools
    group_C: Ints
    mistakes: tuple[Mistake, ...]
    seed: int

    @property
    def num_groups(self) -> int:
        """Groups in it."""
        return len(self.prompt_G)

    @property
    def num_completions(self) -> int:
        """Completions in it."""
        return len(self.score_N)

    @property
    def num_unscored(self) -> int:
        """Completions without a score."""
        return int(np.isnan(self.score_N).sum())

    @property
    def prompt_C(self) -> Ints:
        """The number of each comparison's prompt."""
        return self.prompt_G[self.group_C]

    @property
    def prompt_N(self) -> Ints:
        """The number of each completion's prompt."""
        return self.prompt_G[self.group_N]

    @property
    def subset_C(self) -> Ints:
        """The number of each comparison's subset."""
        return self.subset_G[self.group_C]


class TableBuilder:
    """Takes scored Groups one by one and makes a Table of them; `keep_texts` is how many mistakes keep their texts."""

    def __init__(self, *, seed: int = 0, keep_texts: int = 20) -> None:
        self._seed, self._keep_texts = seed, keep_texts
        self._floats = {name: array("d") for name in ("score", "tokens", "rating")}
        counts = ("length", "lists", "headings", "bold", "group", "start", "prompt", "subset", "better", "worse", "of")
        self._ints = {name: array("q") for name in counts}
        self._is_tie = array("b")
        self._words, self._word_ends = array("H"), array("q", [0])
        self._codes = _WordCodes()
        self._ids: list[str | None] = []
        self._prompts: dict[bytes, int] = {}
        self._subsets: dict[tuple[str, str], int] = {}
        self._mistakes: list[tuple[float, int, Mistake, str]] = []

    def add(
        self, group: Group, scores: Scores, *, tokens: Sequence[int | None] | None = None, dataset: str = ""
    ) -> None:
        """A Group with one score a completion, None for those that have none; `tokens` are those of the answers.

        What has no finite score counts as unscored.
        """
        for what, given in (("scores", scores), ("token counts", tokens)):
            if given is not None and len(given) != len(group.completions):
                raise InputError(
                    f"{len(given)} {what} came for {len(group.completions)} completions; one each was needed, "
                    "None for a completion that has none"
                )
        number, first = len(self._ids), len(self._floats["score"])
        finite = [s if s is not None and math.isfinite(s) else math.nan for s in scores]
        self._floats["score"].extend(finite)
        self._floats["tokens"].extend([math.nan if t is None else t for t in tokens or [None] * len(scores)])
        self._floats["rating"].extend(_mean_ratings(group))
        texts = [completion.text for completion in group.completions]
        for text in texts:
            self._add_text(text, number)
        self._ints["start"].append(first)
        self._ints["prompt"].append(self._prompts.setdefault(prompt_key(group), len(self._prompts)))
        subset = (dataset, group.subset or "")
        self._ints["subset"].append(self._subsets.setdefault(subset, len(self._subsets)))
        self._ids.append(group.id)
        worst: tuple[float, Comparison] | None = None
        for c in settle(group, ties=True):
            self._add_comparison(c, first, number)
            gap = finite[c.worse] - finite[c.better]
            if not c.is_tie and gap > 0 and (worst is None or gap > worst[0]):
                worst = gap, c
        if worst is not None:
            self._remember(worst, group, finite, dataset)

    def _add_text(self, text: str, number: int) -> None:
        """What is kept of an answer's text."""
        ints = self._ints
        ints["group"].append(number)
        ints["length"].append(len(text))
        ints["lists"].append(count_list_items(text))
        ints["headings"].append(count_headings(text))
        ints["bold"].append(count_bold(text))
        self._words.extend(self._codes.code_text(text))
        self._word_ends.append(len(self._words))

    def _add_comparison(self, c: Comparison, first: int, number: int) -> None:
        self._ints["better"].append(first + c.better)
        self._ints["worse"].append(first + c.worse)
        self._ints["of"].append(number)
        self._is_tie.append(c.is_tie)

    def _remember(self, worst: tuple[float, Comparison], group: Group, scores: Scores, dataset: str) -> None:
        """Keep the worst mistake of a Group if it is among the worst of all; of equals, the one that came first."""
        gap, c = worst
        number = -len(self._ids)
        if not self._keep_texts or (len(self._mistakes) == self._keep_texts and (gap, number) < self._mistakes[0][:2]):
            return
        mistake = Mistake(
            prompt=cut_text(show_content(group.prompt)),
            better=cut_text(group.completions[c.better].text),
            worse=cut_text(group.completions[c.worse].text),
            score_better=float(scores[c.better] or 0.0),
            score_worse=float(scores[c.worse] or 0.0),
            subset=group.subset or "",
            id=group.id,
        )
        push = heapq.heappush if len(self._mistakes) < self._keep_texts else heapq.heapreplace
        push(self._mistakes, (gap, number, mistake, dataset))

    def finish(self) -> Table:
        """The table of all that was added; the builder is done with."""
        floats = {name: np.array(column, dtype=np.float64) for name, column in self._floats.items()}
        ints = {name: np.array(column, dtype=np.int64) for name, column in self._ints.items()}
        return Table(
            score_N=floats["score"],
            length_N=ints["length"],
            tokens_N=floats["tokens"],
            rating_N=floats["rating"],
            lists_N=ints["lists"],
            headings_N=ints["headings"],
            bold_N=ints["bold"],
            group_N=ints["group"],
            word_start_N=np.array(self._word_ends, dtype=np.int64),
            word_W=np.array(self._words, dtype=np.uint16),
            start_G=ints["start"],
            prompt_G=ints["prompt"],
            subset_G=ints["subset"],
            id_G=tuple(self._ids),
            subsets=tuple(name_subsets(self._subsets)),
            better_C=ints["better"],
            worse_C=ints["worse"],
            is_tie_C=np.array(self._is_tie, dtype=np.bool_),
            group_C=ints["of"],
            mistakes=tuple(m for *_, m, _ in sorted(self._mistakes, key=lambda one: (-one[0], -one[1]))),
            seed=self._seed,
        )


def build_table(groups: Iterable[Group], scores: Iterable[Scores], *, seed: int = 0, keep_texts: int = 20) -> Table:
    """The table of Groups and their scores, one list of scores a Group."""
    builder = TableBuilder(seed=seed, keep_texts=keep_texts)
    for group, ours in zip(groups, scores, strict=True):
        builder.add(group, ours)
    return builder.finish()


class _WordCodes(dict[bytes, int]):
    """Word -> code, computed when a word is first seen."""

    def code_text(self, text: str) -> list[int]:
        """The codes of a text's words, and of its punctuation marks, each once. A word is letters and digits."""
        if len(self) > _MOST_REMEMBERED:
            self.clear()
        # On bytes, as on characters this takes most of the time that measuring takes.
        words = text.lower().encode("utf-8", "surrogatepass").translate(_SPACED).split()
        codes = set(map(self.__getitem__, words))
        codes.update(code for mark, code in _MARK_CODES if mark in text)
        return sorted(codes)

    def __missing__(self, word: bytes) -> int:
        code = self[word] = zlib.crc32(word) % WORD_CODES
        return code


def name_subsets(subsets: Iterable[tuple[str, str]]) -> list[str]:
    """One name for each dataset and subset; the dataset is part of it where there are several."""
    pairs = list(subsets)
    if len({dataset for dataset, _ in pairs}) > 1:
        return ["/".join(part for part in pair if part) or "rest" for pair in pairs]
    return [subset or dataset or "rest" for dataset, subset in pairs]


def show_content(content: Content) -> str:
    """A prompt as text: plain, or its turns with who speaks."""
    if isinstance(content, str):
        return content
    return "\n\n".join(f"{turn.get('role')}: {turn_text(turn)}" for turn in content)


def cut_text(text: str) -> str:
    """The beginning of a long text, and how much is left out."""
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} … ({len(text) - MOST_TEXT:,} more characters)"


def _mean_ratings(group: Group) -> list[float]:
    """The mean rating of each completion over the labels that rate it; nan where none does."""
    total, weight = [0.0] * len(group.completions), [0.0] * len(group.completions)
    for label in group.labels:
        if isinstance(label, Ratings):
            for k, rating in enumerate(label.ratings):
                if rating is not None:
                    total[k] += label.weight * rating
                    weight[k] += label.weight
    return [t / w if w else math.nan for t, w in zip(total, weight, strict=True)]
