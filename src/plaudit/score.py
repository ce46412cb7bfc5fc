"""A stream of Groups in, their Scores out, in the same order, window by window.

The last stage of the engine. Work is done ahead, so that a device never waits for the host:

    thread "render"    reads the next window of Groups, renders it and cuts it into packs
    thread "prepare"   builds attention plans and index tensors of the next packs, in pinned memory for a GPU
    the caller         launches a forward, and only then reads the scores of the one before (on a CPU: at once)

Memory is a few windows, whatever the stream. A pack that does not fit in memory halves the budget and is cut again;
that is counted and reported.

Invariant: as many Scores leave as Groups came, in their order, and a completion without a score has a reason. Any
number of threads may use one Scorer.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch

from plaudit.adjust import Calibration, correct_scores, read_calibration, read_length_fit
from plaudit.encode import Encoder
from plaudit.errors import ConfigError, InputError, InternalError, ModelError, PlauditError
from plaudit.group import Completion, Content, Group
from plaudit.memory import find_budget, is_out_of_memory
from plaudit.model import PLAIN, RewardNet
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

Result = TypeVar("Result")

READ_AHEAD = 2
"""Windows that are read and rendered ahead. With one, a window that takes longer than the one before it costs time."""

NUM_AHEAD = 2
"""Packs that are prepared ahead of the one that is launched. Plans of many long packs would fill a device."""

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


@dataclass(kw_only=True, slots=True, eq=False)
class Window:
    """Rendered Groups that were cut into packs; once all of them are scored, `scores` holds the result.

    Packs were cut for `cut_for` tokens; `budget` is less if memory ran out since. `unique_tokens` and `total_tokens`
    are those of this window, whatever else its Scorer does at the same time.
    """

    rendered: Sequence[Rendered]
    packs: deque[Pack]
    cut_for: int
    budget: int
    is_fixed: bool
    found: list[list[float | None]]
    num_todo: int
    num_packs_left: int
    watch: Callable[[float], None] | None = None
    num_found: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    scores: list[Scores] = field(default_factory=list)


Fetch = Callable[[], list[float]]
"""Waits for the scores of a forward that was launched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Launched:
    """A pack whose forward was launched; without `fetch` its scores are in the window already, in smaller packs."""

    window: Window
    pack: Pack
    fetch: Fetch | None
    is_ready: bool
    began: float


class Scorer:
    """Scores streams of Groups with one model. Make one, use it for as many streams as you like, on any threads."""

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
        self._lock, self._render_lock = threading.Lock(), threading.Lock()

    @property
    def notes(self) -> list[str]:
        """What there is to say about how scores come about; what rendering did is in `renderer.counts`."""
        said = [*self.net.notes, *self.renderer.notes]
        if self.halvings:
            often = "once" if self.halvings == 1 else f"{self.halvings} times"
            said.append(f"memory ran out {often}: packs were cut down to {self.budget} tokens")
        return said

    def score_groups(self, groups: Iterable[Group]) -> Iterator[Scores]:
        """Scores of each Group, in order. Reads up to three windows ahead."""
        source = iter(groups)

        def read() -> Window | None:
            chosen = list(islice(source, self.window))
            return self.open_window(self.render(chosen)) if chosen else None

        for window in self.score_windows(read):
            yield from window.scores

    def score_window(self, groups: Sequence[Group]) -> list[Scores]:
        """Scores of one window of Groups, all at once: the unit that a long job commits."""
        return self.score_rendered(self.render(groups)) if groups else []

    def render(self, groups: Sequence[Group]) -> list[Rendered]:
        """The Groups as token ids; one thread at a time, since the renderer counts what it does."""
        with self._render_lock:
            return self.renderer.render(groups)

    def score_rendered(
        self, rendered: Sequence[Rendered], watch: Callable[[float], None] | None = None
    ) -> list[Scores]:
        """Scores of one window of Groups, rendered already; `watch` hears, pack by pack, what share is done."""
        window = self.open_window(rendered, watch=watch)
        with ThreadPoolExecutor(1, "prepare") as prepare:
            for _ in self._run(chain([_completed(window)], repeat(_completed(None))), prepare):
                pass
        return window.scores

    def open_window(
        self,
        rendered: Sequence[Rendered],
        *,
        budget: int | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> Window:
        """A window for `score_windows`, cut into packs.

        With a `budget` its packs are what they are in an undisturbed run, whether or not memory ran out before.
        """
        cut_for = budget or self.budget
        todo = [r.ids if r.dropped is None else (None,) * len(r.ids) for r in rendered]
        packs = deque(self._cut(todo, cut_for))
        return Window(
            rendered=rendered,
            packs=packs,
            cut_for=cut_for,
            budget=cut_for,
            is_fixed=budget is not None,
            found=[[None] * len(r.ids) for r in rendered],
            num_todo=sum(ids is not None for row in todo for ids in row),
            num_packs_left=len(packs),
            watch=watch,
        )

    def score_windows(self, read: Callable[[], Window | None]) -> Iterator[Window]:
        """Each window that `read` opens, in order and scored, until it returns None; `read` runs on another thread."""
        with ThreadPoolExecutor(1, "render") as render, ThreadPoolExecutor(1, "prepare") as prepare:
            try:
                yield from self._run(iter(lambda: render.submit(read), None), prepare)
            finally:
                # Whoever leaves early waits for what is being done, and not for what is queued.
                prepare.shutdown(wait=False, cancel_futures=True)

    def _run(self, windows: Iterator[Future[Window | None]], prepare: ThreadPoolExecutor) -> Iterator[Window]:
        """The pipeline: packs are prepared ahead, and the next forward is launched before scores are waited for."""
        stream = _current_stream(self.net)
        coming: deque[Future[Window | None]] = deque(islice(windows, READ_AHEAD))
        unfinished: deque[Window] = deque()
        ahead: deque[tuple[Window, Pack, Future[Pack]]] = deque()
        flying: _Launched | None = None
        landed_at = 0.0
        while coming or unfinished:
            while len(ahead) <= NUM_AHEAD:
                if unfinished and unfinished[-1].packs:
                    window, pack = unfinished[-1], unfinished[-1].packs.popleft()
                    # What is needed at once is not worth a thread.
                    is_urgent = not ahead and flying is None
                    job = partial(self._prepare, pack, stream)
                    ahead.append((window, pack, _call_now(job) if is_urgent else prepare.submit(job)))
                elif coming and len(unfinished) < 2 and (not unfinished or _has_succeeded(coming[0])):
                    # This waits only where nothing else is left to do, so that no score waits for Groups after its own,
                    # and a failure to read comes after the scores of what was read before.
                    opened = coming.popleft().result()
                    if opened is None:
                        coming.clear()
                        continue
                    coming.append(next(windows))
                    unfinished.append(opened)
                    if not opened.packs:
                        break
                else:
                    break
            before, flying = flying, self._launch(*ahead.popleft(), stream) if ahead else None
            for launched in (before, flying):
                if launched is None or (launched is flying and not launched.is_ready):
                    continue
                self._land(launched)
                now = time.perf_counter()
                with self._lock:
                    self.tally.seconds += now - max(launched.began, landed_at)
                landed_at = now
                if launched.window.watch:
                    launched.window.watch(launched.window.num_found / launched.window.num_todo)
            if flying is not None and flying.is_ready:
                flying = None
            while unfinished and not unfinished[0].num_packs_left:
                yield self._close(unfinished.popleft())

    def _prepare(self, pack: Pack, stream: torch.cuda.Stream | None) -> Pack:
        """What the forward of a pack needs from the host; on a GPU its copies are queued on the caller's stream."""
        if self.net.backend == PLAIN:
            return pack
        with torch.cuda.stream(stream):
            return self.net.prepare(pack)

    def _launch(
        self, window: Window, pack: Pack, prepared: Future[Pack], stream: torch.cuda.Stream | None
    ) -> _Launched:
        began = time.perf_counter()
        with self._lock:
            window.budget = window.budget if window.is_fixed else min(window.budget, self.budget)
        # Packs that were cut before memory ran out are cut again untried: each would halve the budget once more.
        fetch = self._try_pack(window, pack, prepared, stream) if window.budget == window.cut_for else None
        if fetch is None:
            self._score_again(window, pack)
        is_ready = fetch is None or not isinstance(fetch, LateScores)
        return _Launched(window=window, pack=pack, fetch=fetch, is_ready=is_ready, began=began)

    def _land(self, launched: _Launched) -> None:
        """Wait for the scores of a pack and put them where they belong."""
        if launched.fetch is not None:
            self._keep(launched.window, launched.pack, launched.fetch())
        launched.window.num_packs_left -= 1

    def _keep(self, window: Window, pack: Pack, scores: list[float]) -> None:
        self._count(window, pack)
        for at, score in enumerate(scores):
            # A non-finite value spreads to all that share tokens with it, since zero times NaN is NaN.
            if not math.isfinite(score) and len(scores) > 1:
                scores[at] = self._score_alone(window, pack.tree.sequence(at))
        for (group, completion), score in zip(pack.members_L, scores, strict=True):
            window.found[group][completion] = score
        window.num_found += len(scores)

    def _count(self, window: Window, pack: Pack) -> None:
        window.unique_tokens += pack.num_unique
        window.total_tokens += pack.num_total
        with self._lock:
            self.tally.unique_tokens += pack.num_unique
            self.tally.total_tokens += pack.num_total

    def _close(self, window: Window) -> Window:
        """The window with its Scores."""
        window.scores = [self._finish(r, row) for r, row in zip(window.rendered, window.found, strict=True)]
        with self._lock:
            self.tally.groups += len(window.scores)
            self.tally.completions += sum(map(len, window.found))
            self.tally.scored += sum(score is not None for row in window.found for score in row)
        return window

    def _finish(self, rendered: Rendered, row: list[float | None]) -> Scores:
        """The row with reasons; a non-finite score is a reason too, never a number."""
        reasons = [rendered.dropped or reason for reason in rendered.unscored]
        for k, score in enumerate(row):
            if score is not None and not math.isfinite(score):
                row[k], reasons[k] = None, f"the model gave {score}"
            if row[k] is None and reasons[k] is None:
                raise InternalError(f"completion {k} came through the scorer without a score and without a reason")
        return Scores(scores=tuple(row), unscored=tuple(reasons), dropped=rendered.dropped)

    def _cut(self, rows: Sequence[Sequence[Ints | None]], budget: int) -> list[Pack]:
        return build_packs(rows, PackSettings(budget=budget, share=self.settings.share, fixed=self.invariant))

    def _score_alone(self, window: Window, ids: Ints) -> float:
        """The score of one completion with nothing beside it."""
        [pack] = self._cut([[ids]], window.budget)
        while (fetch := self._try_pack(window, pack)) is None:
            pass  # each failure halves the budget, and at the smallest one it raises
        self._count(window, pack)
        [score] = fetch()
        return score

    def _try_pack(
        self,
        window: Window,
        pack: Pack,
        prepared: Future[Pack] | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> Fetch | None:
        """Launch the forward of a pack; None, and half the budget, if memory ran out."""
        try:
            with torch.cuda.stream(stream), torch.inference_mode():
                return start_fetch(self.net(pack if prepared is None else prepared.result()))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.invariant:
                raise InputError(
                    f"memory ran out at {pack.size:,} tokens a pack, and invariant scores cannot be had from smaller "
                    "ones; free some memory, or leave invariant out"
                ) from error
            if window.budget <= SMALLEST_BUDGET:
                raise InputError(
                    f"memory ran out at {pack.size:,} tokens a pack, and it cannot be cut any smaller; "
                    "free some memory, or lower max_length"
                ) from error
        # Outside of the handler: the error's traceback keeps what the forward had taken.
        window.budget = max(window.budget // 2, SMALLEST_BUDGET)
        with self._lock:
            self.budget, self.halvings = min(self.budget, window.budget), self.halvings + 1
        if self.net.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _score_again(self, window: Window, pack: Pack) -> None:
        """The same leaves in smaller packs, each waited for."""
        places: dict[int, list[int]] = {}
        for at, (group, _) in enumerate(pack.members_L):
            places.setdefault(group, []).append(at)
        rows = list(places.values())
        budget = window.budget
        for piece in self._cut([[pack.tree.sequence(at) for at in row] for row in rows], budget):
            named = replace(piece, members_L=tuple(pack.members_L[rows[row][k]] for row, k in piece.members_L))
            fetch = self._try_pack(window, named) if window.budget == budget else None
            if fetch is None:
                self._score_again(window, named)
                continue
            self._keep(window, named, fetch())
            if window.watch:
                window.watch(window.num_found / window.num_todo)

    def _find_budget(self) -> int:
        if self.invariant:
            return INVARIANT_BUDGET
        return find_budget(self.net.hf.config.get_text_config(), self.net.dtype, self.net.device)


def _current_stream(net: RewardNet) -> torch.cuda.Stream | None:
    """The stream on which the caller's work is queued; None on a CPU."""
    return torch.cuda.current_stream(net.device) if net.head.weight.is_cuda else None


class LateScores:
    """Scores that are on their way to the host."""

    def __init__(self, scores_L: torch.Tensor) -> None:
        # Queued behind this forward and before the next one: a `tolist` after the next launch would wait for both.
        self._host_L = torch.empty(scores_L.shape, dtype=scores_L.dtype, pin_memory=True)
        self._host_L.copy_(scores_L, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()

    def __call__(self) -> list[float]:
        """The scores, once they have arrived."""
        self._copied.synchronize()
        found: list[float] = self._host_L.tolist()
        return found


def start_fetch(scores_L: torch.Tensor) -> Fetch:
    """Scores on a GPU are fetched later; those on a CPU are there."""
    if scores_L.is_cuda:
        return LateScores(scores_L)
    found: list[float] = scores_L.tolist()
    return lambda: found


def _call_now(function: Callable[[], Result]) -> Future[Result]:
    """A future of work that is done on this thread; what it raises is raised where its result is used."""
    done: Future[Result] = Future()
    try:
        done.set_result(function())
    except (RuntimeError, MemoryError, ValueError, PlauditError) as error:
        done.set_exception(error)
    return done


def _completed(value: Result) -> Future[Result]:
    return _call_now(lambda: value)


def _has_succeeded(future: Future[Any]) -> bool:
    return future.done() and future.exception() is None


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
        return [len(ids) for ids in Encoder(self.tokenizer).encode_texts(texts)]


def _remembering(groups: Iterable[Group], seen: deque[Group]) -> Iterator[Group]:
    """The same Groups, each kept until its scores are there."""
    for group in groups:
        seen.append(group)
        yield group
