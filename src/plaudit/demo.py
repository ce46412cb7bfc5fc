"""The story on the embedded model: a head fitted in seconds, answers ranked with it, and what to do next.

Stands on everything above it, through the doors that users take. The starter data (`starter/`) was written for this
project. Invariant: every number is measured when it is shown, the head is judged on prompts that it was not fitted to,
and what is saved says that it is a demonstration.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plaudit import __version__
from plaudit.embedded import EMBEDDED, cache_folder
from plaudit.errors import ConfigError, InternalError
from plaudit.formats import read_groups
from plaudit.group import Group
from plaudit.pack import PackSettings, build_packs
from plaudit.render import Rendered, Renderer
from plaudit.score import RewardModel, ScoreSettings
from plaudit.scorefile import ScoreJob

STARTER = Path(__file__).with_name("starter")
COMPARISONS, CANDIDATES, MARK = "comparisons.jsonl", "candidates.jsonl", "demo.json"
STRENGTH = 30.0
"""Of the L2 penalty, on hidden states scaled to unit deviation; ten times more or less moved two of forty pairs."""
FIT_BUDGET = 2048
WARNING = "a demonstration, fitted to a few dozen comparisons: not a model to trust"
NEWTON_STEPS, TOLERANCE = 100, 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Comparisons of one kind, each judged by a head that never saw its prompt or its answers; Wilson's 95% interval.

    `longer` is how many the longer answer would get right (half for a tie in tokens).
    """

    against: str
    right: int
    total: int
    interval: tuple[float, float]
    longer: float
    chance: float = 0.5

    @property
    def accuracy(self) -> float:
        """The share that came out right."""
        return self.right / self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A head: how many prompts and comparisons it was fitted to, how it did held out, and the seconds for all of it."""

    prompts: int
    comparisons: int
    held_out: tuple[HeldOut, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """One answer with its score, and what the author of the starter data thought of it (3 good, 0 bad)."""

    score: float
    text: str
    rating: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """One prompt and its answers, best first."""

    prompt: str
    answers: tuple[Ranked, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A file scored: the rankings, what they cost, and how they compare.

    `difference` is the largest one between these scores and the first prompt's answers alone through transformers;
    `agreeing` of `compared` comparisons of two differently rated answers come out as their author rated them.
    """

    rankings: tuple[Ranking, ...]
    completions: int
    seconds: float
    unique_tokens: int
    total_tokens: int
    difference: float
    agreeing: int
    compared: int


def open_run(out: Path | None) -> Path:
    """The folder of a run, with the starter data in it; ConfigError if it holds something that is not ours."""
    run = cache_folder() / "demo" if out is None else out.expanduser()
    if run.exists() and not (run.is_dir() and (_is_marked(run) or not any(run.iterdir()))):
        raise ConfigError(f"{run} is there and is not the folder of a demo; name a new one with --out")
    run.mkdir(parents=True, exist_ok=True)
    (run / MARK).write_text(json.dumps({"plaudit": __version__}) + "\n", encoding="utf-8")
    for name in (COMPARISONS, CANDIDATES):
        shutil.copyfile(STARTER / name, run / name)
    return run


def _is_marked(run: Path) -> bool:
    """Whether the folder says itself that a demo made it; any program may have a demo.json."""
    try:
        said = json.loads((run / MARK).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and "plaudit" in said


def load_language_model(*, dtype: str = "auto", device: str | None = None) -> RewardModel:
    """The embedded language model, with a head that knows nothing yet."""
    return RewardModel.load(EMBEDDED, dtype=dtype, device=device, new_head=True)


def fit_head(net: RewardModel, groups: Sequence[Group]) -> Fit:
    """Put a head on the model that tells better from worse in these Groups, and say how well such a head does held out.

    Held out means that every comparison which shares a prompt or an answer with the one in question is left out of its
    fit.
    """
    start = time.perf_counter()
    rendered = Renderer(net.tokenizer, context_length=net.context_length).render(groups)
    hidden = read_hidden(net, rendered)
    claims = [(row, c.better, c.worse) for row, group in enumerate(groups) for c in group.comparisons()]
    better = torch.stack([hidden[row, k] for row, k, _ in claims])
    worse = torch.stack([hidden[row, k] for row, _, k in claims])
    preferred = {groups[row].completions[k].text for row, k, _ in claims}
    judged: dict[str, list[tuple[bool, float]]] = {}
    with _one_thread():
        for n, (row, k, other) in enumerate(claims):
            apart = [m for m, claim in enumerate(claims) if not _overlap(groups[row], groups[claim[0]])]
            is_right = float((better[n] - worse[n]) @ fit_direction(better[apart], worse[apart])) > 0
            is_answer = groups[row].completions[other].text in preferred
            kind = "another question's answer" if is_answer else "a worse answer"
            judged.setdefault(kind, []).append((is_right, _is_longer(rendered[row], k, other)))
        direction = fit_direction(better, worse)
    net.head.weight.data = direction[None].float().to(net.device)
    net.is_new = False
    return Fit(
        prompts=len(groups),
        comparisons=len(claims),
        held_out=tuple(_count_right(kind, verdicts) for kind, verdicts in sorted(judged.items())),
        seconds=time.perf_counter() - start,
    )


def _overlap(a: Group, b: Group) -> bool:
    """Whether two Groups share a prompt or an answer."""
    return a.prompt == b.prompt or bool({c.text for c in a.completions} & {c.text for c in b.completions})


def _count_right(kind: str, verdicts: Sequence[tuple[bool, float]]) -> HeldOut:
    from scipy.stats import binomtest

    right, total = sum(is_right for is_right, _ in verdicts), len(verdicts)
    found = binomtest(right, total).proportion_ci(method="wilson")
    interval = (float(found.low), float(found.high))
    return HeldOut(against=kind, right=right, total=total, interval=interval, longer=sum(x for _, x in verdicts))


def _is_longer(rendered: Rendered, better: int, worse: int) -> float:
    """1 if the better answer is the longer one, one half if both are as long."""
    a, b = (0 if ids is None else len(ids) for ids in (rendered.ids[better], rendered.ids[worse]))
    return 0.5 if a == b else float(a > b)


def read_hidden(net: RewardModel, rendered: Sequence[Rendered]) -> dict[tuple[int, int], Tensor]:
    """The hidden state at the end of every completion, by (group, completion)."""
    found: dict[tuple[int, int], Tensor] = {}
    for pack in build_packs([r.ids for r in rendered], PackSettings(budget=FIT_BUDGET)):
        with torch.inference_mode():
            hidden_LD = net.hidden_leaves(pack).double().cpu()
        found |= dict(zip(pack.members_L, hidden_LD, strict=True))
    return found


def fit_direction(better: Tensor, worse: Tensor, *, strength: float = STRENGTH) -> Tensor:
    """The weights of an L2-regularised logistic regression on the differences of each two rows, by Newton's method.

    They are orthogonal to the mean of all rows: differences cannot tell where zero is, so scores are put around it.
    Rows are fewer than their features, so the weights are looked for as a sum of rows: `difference.T @ dual`.
    """
    rows = torch.cat([better, worse])
    scale = rows.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    middle = nn.functional.normalize(rows.mean(0) / scale, dim=0)
    difference = (better - worse) / scale
    difference = difference - torch.outer(difference @ middle, middle)
    kernel, dual = difference @ difference.T, torch.zeros(len(difference), dtype=rows.dtype)
    for _ in range(NEWTON_STEPS):
        doubt = torch.sigmoid(-kernel @ dual)
        residual = doubt - strength * dual
        if float(residual.abs().max()) < TOLERANCE:
            return difference.T @ dual / scale
        curvature = (doubt * (1 - doubt))[:, None] * kernel + strength * torch.eye(len(dual), dtype=rows.dtype)
        dual = dual + torch.linalg.solve(curvature, residual)
    raise InternalError(f"the head of the demo was not fitted in {NEWTON_STEPS} steps; report it with your versions")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Many products of a hundred rows: on a busy machine, threads would wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_comparisons(run: Path) -> list[Group]:
    """What the head is fitted to."""
    return list(read_groups(run / COMPARISONS))


def save_model(net: RewardModel, run: Path, fit: Fit) -> Path:
    """Save the model with its head where a run keeps it, marked as the demonstration that it is."""
    # The embedded weights came in bfloat16, so nothing is lost; the head stays in float32.
    net.backbone.to(torch.bfloat16)
    return net.save(run / "model", card={"demo": WARNING, "fit": asdict(fit)})


def rank_candidates(net: RewardModel, run: Path) -> Round:
    """Score the run's candidates as `plaudit score` would, into `scored.jsonl`, and rank each prompt's answers."""
    out = run / "scored.jsonl"
    with ScoreJob([str(run / CANDIDATES)], str(out)) as job:
        job.open(net, ScoreSettings())
        start = time.perf_counter()
        job.score()
        seconds = time.perf_counter() - start
        summary = job.merge()
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    rankings = tuple(_rank(row) for row in rows)
    judged = [
        _agrees(a, b) for ranking in rankings for n, a in enumerate(ranking.answers) for b in ranking.answers[n + 1 :]
    ]
    first = next(iter(read_groups(run / CANDIDATES)))
    return Round(
        rankings=rankings,
        completions=summary.completions,
        seconds=seconds,
        unique_tokens=summary.unique_tokens,
        total_tokens=summary.total_tokens,
        difference=compare_alone(net, first, rows[0]["scores"]),
        agreeing=sum(verdict is True for verdict in judged),
        compared=sum(verdict is not None for verdict in judged),
    )


def _rank(row: dict[str, Any]) -> Ranking:
    ratings = row["labels"][0]["ratings"]
    if None in row["scores"]:
        raise InternalError(f"an answer of the starter data came back without a score: {row['unscored']}")
    answers = [
        Ranked(score=score, text=text, rating=rating)
        for score, text, rating in zip(row["scores"], row["completions"], ratings, strict=True)
    ]
    prompt = row["prompt"][0]["content"]
    return Ranking(prompt=prompt, answers=tuple(sorted(answers, key=lambda answer: -answer.score)))


def _agrees(above: Ranked, below: Ranked) -> bool | None:
    """Whether the one that was ranked above was rated above too; None where both were rated alike."""
    return None if above.rating == below.rating else above.rating > below.rating


def compare_alone(net: RewardModel, group: Group, scores: Sequence[float]) -> float:
    """The largest difference between these scores and each completion alone through the transformers model."""
    [rendered] = Renderer(net.tokenizer, context_length=net.context_length).render([group])
    found = []
    with net.plain_attention() as hf, torch.inference_mode():
        for ids, score in zip(rendered.ids, scores, strict=True):
            row = torch.from_numpy(np.asarray(ids, np.int64))[None].to(net.device)
            found.append(abs(float(hf(input_ids=row).logits[0, 0]) - score))
    return max(found)


def suggest_commands(run: Path, *, plaudit: str = "plaudit", python: str = "python") -> tuple[str, ...]:
    """Three commands that go on from this working folder and work as they are printed."""
    model, data, out = (shlex.quote(str(run / name)) for name in ("model", CANDIDATES, "again.jsonl"))
    question = 'score("What is 2 + 2?", ["2 + 2 is 4.", "Numbers are dull."])'
    name = json.dumps(str(run / "model"), ensure_ascii=False)
    code = f"import plaudit; print(plaudit.load({name}).{question})"
    return (
        f"{plaudit} score {model} {data} -o {out}",
        f"{plaudit} doctor {model}",
        f"{python} -c {shlex.quote(code)}",
    )


def note_results(run: Path, results: dict[str, Any]) -> None:
    """Keep the numbers beside the model."""
    (run / MARK).write_text(json.dumps({"plaudit": __version__, **results}, indent=1) + "\n", encoding="utf-8")
