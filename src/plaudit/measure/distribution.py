"""How scores and lengths lie: histograms for the better and the worse, a sample to draw, and how far new data moved.

Stands on `table` and `intervals`. Invariant: bins are laid by the reference, or by all scores, never by one side alone.
Letters: N completions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from plaudit.measure.intervals import Floats, Interval, Ints, percentile_interval, resample_sums
from plaudit.measure.record import Record
from plaudit.measure.table import Table

BINS, MOST_POINTS, TENTHS = 40, 2_000, 10

MODERATE, LARGE = 0.1, 0.25
"""A population stability index below the first is called no shift, above the second a large one, by long custom."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution(Record):
    """Scores of `n` completions, and how many of the better and of the worse ones lie between each two `edges`."""

    n: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    edges: tuple[float, ...]
    better: tuple[int, ...]
    worse: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved(Record):
    """One quantity, new against reference: means, how far they moved in the reference's standard deviations, distances.

    `ks` is the largest distance of the two distribution functions, `ks_p` its chance if nothing had moved, taking
    prompts for the size of the samples; `psi` is the population stability index over tenths of the reference, and
    `size` says in a word what it is taken for.
    """

    n: int
    n_reference: int
    mean: float
    mean_reference: float
    std: float
    std_reference: float
    moved: float | None
    moved_ci: Interval | None
    ks: float
    ks_p: float
    psi: float
    size: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift(Record):
    """Scores, and lengths of answers in characters."""

    score: Moved | None
    length: Moved | None


def describe_scores(table: Table) -> Distribution:
    """The scores' spread and histogram; a completion counts once for every comparison that it wins or loses."""
    score_N = table.score_N
    known = score_N[~np.isnan(score_N)]
    if not len(known):
        return Distribution(n=0, mean=None, std=None, min=None, max=None, edges=(), better=(), worse=())
    edges = np.histogram_bin_edges(known, bins=BINS)
    sides = [score_N[side_C[~table.is_tie_C]] for side_C in (table.better_C, table.worse_C)]
    better, worse = (np.histogram(side[~np.isnan(side)], bins=edges)[0] for side in sides)
    return Distribution(
        n=len(known),
        mean=float(known.mean()),
        std=float(known.std(ddof=1)) if len(known) > 1 else None,
        min=float(known.min()),
        max=float(known.max()),
        edges=tuple(edges.tolist()),
        better=tuple(better.tolist()),
        worse=tuple(worse.tolist()),
    )


def sample_lengths(table: Table, *, most: int = MOST_POINTS) -> list[tuple[int, float]]:
    """Length and score of scored completions, all of them or so many drawn by lot, in the table's order."""
    there = np.flatnonzero(~np.isnan(table.score_N))
    if len(there) > most:
        there = np.sort(np.random.default_rng([table.seed, 4]).choice(there, most, replace=False))
    return list(zip(table.length_N[there].tolist(), table.score_N[there].tolist(), strict=True))


def measure_shift(new: Table, reference: Table) -> Shift:
    """How far scores and lengths of scored completions lie from those of the reference; None where either is empty."""
    there, back = (~np.isnan(table.score_N) for table in (new, reference))
    if not there.any() or not back.any():
        return Shift(score=None, length=None)
    prompts = new.prompt_N[there], reference.prompt_N[back]
    lengths = new.length_N[there].astype(np.float64), reference.length_N[back].astype(np.float64)
    return Shift(
        score=_measure_moved(new.score_N[there], reference.score_N[back], prompts, new.seed),
        length=_measure_moved(*lengths, prompts, new.seed),
    )


def _measure_moved(new: Floats, old: Floats, prompts: tuple[Ints, Ints], seed: int) -> Moved:
    spread = float(old.std())
    moved = float(new.mean() - old.mean()) / spread if spread else None
    num_prompts = [len(np.unique(codes)) for codes in prompts]
    interval = None
    if spread:
        drawn = []
        # Two samples of their own: the second is drawn with another seed.
        for values, codes, own in ((new, prompts[0], seed), (old, prompts[1], seed + 1)):
            sums = resample_sums(np.stack([values, np.ones(len(values))], axis=1), codes, seed=own)
            drawn.append(sums[:, 0] / sums[:, 1])
        interval = percentile_interval((drawn[0] - drawn[1]) / spread, min(num_prompts))
    ks, psi = measure_ks(new, old), measure_psi(new, old)
    size = num_prompts[0] * num_prompts[1] / sum(num_prompts)
    return Moved(
        n=len(new),
        n_reference=len(old),
        mean=float(new.mean()),
        mean_reference=float(old.mean()),
        std=float(new.std()),
        std_reference=spread,
        moved=moved,
        moved_ci=interval,
        ks=ks,
        ks_p=float(special.kolmogorov(np.sqrt(size) * ks)),
        psi=psi,
        size="none" if psi < MODERATE else "moderate" if psi < LARGE else "large",
    )


def measure_ks(new: Floats, old: Floats) -> float:
    """The largest distance between the shares of either sample that lie at or below a value."""
    values = np.concatenate([new, old])
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (new, old)]
    return float(np.abs(shares[0] - shares[1]).max())


def measure_psi(new: Floats, old: Floats) -> float:
    """Population stability index over tenths of the reference; an empty tenth counts as half a completion."""
    edges = np.unique(np.quantile(old, np.linspace(0, 1, TENTHS + 1)[1:-1]))
    shares = []
    for sample in (new, old):
        # Values on an edge go below it, so a value that many share is one bin with its edge.
        counts = np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(edges) + 1)
        shares.append(np.maximum(counts, 0.5) / len(sample))
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
