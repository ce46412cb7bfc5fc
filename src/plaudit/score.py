"""A stream of Groups in, their Scores out, in the same order, window by window.

Last room of the waist. A window of Groups is read ahead, sorted into packs by length, and scored pack by pack, while
the next window is rendered on another thread; memory is one window, whatever the stream. A pack that does not fit in
memory halves the budget and is cut again; that is counted and said.

Invariant: as many Scores leave as Groups came, in their order, and a completion without a score has a reason.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import torch

from plaudit.adjust import Calibration, correct_scores, read_calibration, read_length_fit
from plaudit.errors import ConfigError, InputError, InternalError, ModelError
from plaudit.group import Completion, Content, Group
from plaudit.memory import find_budget, is_out_of_memory
from plaudit.model import RewardNet
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.render import Rendered, Renderer, RenderSettings
from plaudit.tree import Ints

if TYPE_CHECKING:
    from plaudit.measure import LengthFit

Reading = Literal["raw", "length_corrected", "per_token"]
"""How a score is read: as the model gave it, as if all answers were equally long, or by the tokens of the answer."""

Read = Callable[[Group, Sequence[float | None]], Sequence[float | None]]
"""From the raw scores of a Group to others."""

WINDOW = {"cpu": 128, "cuda": 2048}
"""Groups a window: enough to fill packs well, few enough that little is lost when a job is killed."""

Scored = tuple[tuple[int, int], float]
"""A completion by its place in a window (row, number), and its score."""

INVARIANT_BUDGET = 1024
SMALLEST_BUDGET = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """How a stream is scored. None lets the device decide: `budget` tokens a pack, `window` Groups read ahead."""

    budget: int | None = None
    window: int | None = None
    invariant: bool = False
    share: bool = True
    render: RenderSettings = field(default_factory=RenderSettings)

    def __post_init__(self) -> None:
        for name, value in (("budget", self.budget), ("window", self.window)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} came, at least 1 was needed; leave it out to have it found")
        if self.invariant and self.budget is not None:
            raise ConfigError(
                f"budget {self.budget} came with invariant scores, whose packs have one fixed size; leave one out"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One Group's scores, one a completion; None with a reason in `unscored`, all None when the Group was dropped."""

    scores: tuple[float | None, ...]
    unscored: tuple[str | None, ...]
    dropped: str | None = None


@dataclass(kw_only=True, slots=True)
class Tally:
    """What was computed so far: for progress, and for the honest line at the end."""

    groups: int = 0
    completions: int = 0
    scored: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    seconds: float = 0.0

    @property
    def sharing(self) -> float:
        """Tokens of all completions for each token that was computed."""
        return self.total_tokens / self.unique_tokens if self.unique_tokens else 1.0

    @property
    def unique_per_second(self) -> float:
        """Computed tokens a second of model time."""
        return self.unique_tokens / self.seconds if self.seconds else 0.0


class Scorer:
    """Scores streams of Groups with one model. Make one, use it for as many streams as you like."""

    def __init__(self, net: RewardNet, settings: ScoreSettings | None = None) -> None:
        if net.is_new:
            raise ModelError(
                f"{net.checkpoint.folder}: its reward head is new and untrained, so its scores would be noise; "
                "train it first"
            )
        self.net, self.settings = net, settings or ScoreSettings()
        if self.settings.invariant and not net.is_invariant:
            raise ConfigError("invariant scores need a model that was loaded for them; load it with invariant=True")
        self.invariant = net.is_invariant
        kind = net.device.type
        self.window = self.settings.window or WINDOW.get(kind, 128)
        self.budget = self.settings.budget or self._find_budget()
        self.renderer = Renderer(
            net.tokenizer, self.settings.render, context_length=net.context_length, position=net.position
        )
        self.tally = Tally()
        self.halvings = 0

    @property
    def notes(self) -> list[str]:
        """What there is to say about how scores come about; what rendering did is in `renderer.counts`."""
        said = [*self.net.notes, *self.renderer.notes]
        if self.halvings:
            often = "once" if self.halvings == 1 else f"{self.halvings} times"
            said.append(f"memory ran out {often}: packs were cut down to {self.budget} tokens")
        return said

    def score_groups(self, groups: Iterable[Group]) -> Iterator[Scores]:
        """Scores of each Group, in order. Reads a window ahead."""
        source = iter(groups)
        with ThreadPoolExecutor(1, "render") as ahead:
            coming: Future[list[Rendered]] = ahead.submit(self._render, source)
            while rendered := coming.result():
                coming = ahead.submit(self._render, source)
                yield from self.score_rendered(rendered)

    def score_window(self, groups: Sequence[Group]) -> list[Scores]:
        """Scores of one window of Groups, all at once: the unit that a long job commits."""
        return self.score_rendered(self.renderer.render(groups)) if groups else []

    def _render(self, source: Iterator[Group]) -> list[Rendered]:
        return self.renderer.render(list(islice(source, self.window)))

    def score_rendered(
        self, rendered: Sequence[Rendered], watch: Callable[[float], None] | None = None
    ) -> list[Scores]:
        """Scores of one window of Groups, rendered already; `watch` hears, pack by pack, what share is done."""
        found: list[list[float | None]] = [[None] * len(r.ids) for r in rendered]
        todo = [r.ids if r.dropped is None else (None,) * len(r.ids) for r in rendered]
        num_found, num_todo = 0, sum(ids is not None for row in todo for ids in row)
        before = time.perf_counter()
        for scored in self._score_packs(todo):
            for (group, completion), score in scored:
                found[group][completion] = score
            num_found += len(scored)
            now = time.perf_counter()
            self.tally.seconds, before = self.tally.seconds + now - before, now
            if watch:
                watch(num_found / num_todo)
        self.tally.groups += len(rendered)
        self.tally.completions += sum(map(len, found))
        return [self._finish(r, row) for r, row in zip(rendered, found, strict=True)]

    def _finish(self, rendered: Rendered, row: list[float | None]) -> Scores:
        """The row with reasons; a score that is not a number is a reason too, never a number."""
        reasons = [rendered.dropped or reason for reason in rendered.unscored]
        for k, score in enumerate(row):
            if score is not None and not math.isfinite(score):
                row[k], reasons[k] = None, f"the model gave {score}"
            if row[k] is None and reasons[k] is None:
                raise InternalError(f"completion {k} came through the scorer without a score and without a reason")
        self.tally.scored += sum(score is not None for score in row)
        return Scores(scores=tuple(row), unscored=tuple(reasons), dropped=rendered.dropped)

    def _score_packs(self, rows: Sequence[Sequence[Ints | None]]) -> Iterator[list[Scored]]:
        """The score of everything in the rows, pack by pack; a pack that does not fit in memory is cut again."""
        budget = self.budget
        for pack in build_packs(rows, PackSettings(budget=budget, share=self.settings.share, fixed=self.invariant)):
            # Packs that were cut before memory ran out are cut again untried: each would halve the budget once more.
            scores = self._try_pack(pack) if self.budget == budget else None
            if scores is None:
                yield from self._score_again(pack)
                continue
            self.tally.unique_tokens += pack.num_unique
            self.tally.total_tokens += pack.num_total
            for at, score in enumerate(scores):
                # What is no number spreads to whatever shares tokens with it, since zero times it is none either.
                if not math.isfinite(score) and len(scores) > 1:
                    scores[at] = self._score_alone(pack.tree.sequence(at))
            yield list(zip(pack.members_L, scores, strict=True))

    def _score_alone(self, ids: Ints) -> float:
        """The score of one completion with nothing beside it."""
        [[(_, score)]] = self._score_packs([[ids]])
        return score

    def _try_pack(self, pack: Pack) -> list[float] | None:
        """The pack's scores; None, and half the budget, if memory ran out."""
        try:
            with torch.inference_mode():
                scores: list[float] = self.net(pack).tolist()
                return scores
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.invariant:
                raise InputError(
                    f"memory ran out at {pack.size:,} tokens a pack, and invariant scores cannot be had from smaller "
                    "ones; free some memory, or leave invariant out"
                ) from error
            if self.budget <= SMALLEST_BUDGET:
                raise InputError(
                    f"memory ran out at {pack.size:,} tokens a pack, and it cannot be cut any smaller; "
                    "free some memory, or lower max_length"
                ) from error
        # Outside of the handler: the error's traceback keeps what the forward had taken.
        self.budget, self.halvings = max(self.budget // 2, SMALLEST_BUDGET), self.halvings + 1
        if self.net.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _score_again(self, pack: Pack) -> Iterator[list[Scored]]:
        """The same leaves in smaller packs."""
        sequences = [pack.tree.sequence(k) for k in range(len(pack.members_L))]
        groups: dict[int, list[int]] = {}
        for at, (group, _) in enumerate(pack.members_L):
            groups.setdefault(group, []).append(at)
        places = list(groups.values())
        for scored in self._score_packs([[sequences[at] for at in chosen] for chosen in places]):
            yield [(pack.members_L[places[row][k]], score) for (row, k), score in scored]

    def _find_budget(self) -> int:
        if self.invariant:
            return INVARIANT_BUDGET
        return find_budget(self.net.hf.config.get_text_config(), self.net.dtype, self.net.device)


class RewardModel(RewardNet):
    """A reward model that can be asked: `plaudit.load(path)` makes one."""

    def score(
        self,
        prompt: Content,
        completions: Sequence[Content],
        *,
        settings: ScoreSettings | None = None,
        reading: Reading = "raw",
    ) -> list[float | None]:
        """One score a completion, higher is better; None for a completion that cannot be scored, such as an empty one.

        Examples:
            >>> rm.score("What is 2 + 2?", ["4", "5", "It is 4."])   # doctest: +SKIP
            [1.93, -0.41, 1.71]
        """
        group = Group(prompt=prompt, completions=tuple(Completion(content=c) for c in completions))
        read = self.reader(reading)
        [scores] = Scorer(self, settings).score_window([group])
        return list(read(group, scores.scores))

    def score_groups(
        self, groups: Iterable[Group], *, settings: ScoreSettings | None = None, reading: Reading = "raw"
    ) -> Iterator[Scores]:
        """Scores of a stream of Groups, in order; memory does not grow with the stream."""
        read, scorer = self.reader(reading), Scorer(self, settings)
        if reading == "raw":
            return scorer.score_groups(groups)
        seen: deque[Group] = deque()
        found = scorer.score_groups(_remembering(groups, seen))
        return (replace(scores, scores=tuple(read(seen.popleft(), scores.scores))) for scores in found)

    def probability(
        self, prompt: Content, completion: Content, other: Content, *, settings: ScoreSettings | None = None
    ) -> float | None:
        """How likely `completion` is better than `other`, by the temperature that `plaudit eval --calibrate` stored.

        None if one of them cannot be scored; ModelError if no temperature is stored.
        """
        calibration = self.calibration
        mine, its = self.score(prompt, [completion, other], settings=settings)
        return None if mine is None or its is None else calibration.probability(mine, its)

    @property
    def calibration(self) -> Calibration:
        """The temperature that is stored in the model's folder; ModelError if none is."""
        return read_calibration(self.checkpoint.card, self.checkpoint.folder)

    @property
    def length_fit(self) -> LengthFit:
        """The length correction that is stored in the model's folder; ModelError if none is."""
        return read_length_fit(self.checkpoint.card, self.checkpoint.folder)

    def reader(self, reading: Reading) -> Read:
        """From raw scores of a Group to what was asked for; ModelError if the model's folder does not hold it."""
        if reading == "raw":
            return lambda group, scores: scores
        if reading == "length_corrected":
            return partial(correct_scores, self.length_fit)
        if reading == "per_token":
            return self._spread
        raise ConfigError(f"reading={reading!r} came, one of {', '.join(get_args(Reading))} was needed")

    def _spread(self, group: Group, scores: Sequence[float | None]) -> list[float | None]:
        """Each score by the tokens of its answer's own text."""
        counts = self.count_tokens([completion.text for completion in group.completions])
        return [None if s is None else s / max(count, 1) for s, count in zip(scores, counts, strict=True)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself, with nothing of a template around it."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]


def _remembering(groups: Iterable[Group], seen: deque[Group]) -> Iterator[Group]:
    """The same Groups, each kept until its scores are there."""
    for group in groups:
        seen.append(group)
        yield group
