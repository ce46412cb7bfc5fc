"""Public reward benchmarks, one a file, with the score that their authors publish; no torch.

Stands on `formats`, `keys` and `measure`, below the rooms that score. In reading order:

    benchmark    the records: a benchmark, its parts, its result
    tally        Groups and scores -> figures with intervals
    wins         what most of them ask of a Group
    rewardbench, rewardbench2, rmbench, judgebench, llmbar, ppe_preference, ppe_correctness, rmb, hhh
    table        all of them: by name, by dialect, from a name to files

Invariant: figures are those of the published definition from the same scores, also where we would count otherwise
(equal scores); what is not in them is counted; and the result says whether all rows of the benchmark were there.
"""

from __future__ import annotations

from plaudit.benchmarks.benchmark import Benchmark, BenchmarkResult, Marked, Part, PartResult
from plaudit.benchmarks.table import BENCHMARKS, Named, advise, detect_benchmark, find_benchmark, resolve_benchmark
from plaudit.benchmarks.tally import Tally

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkResult",
    "Marked",
    "Named",
    "Part",
    "PartResult",
    "Tally",
    "advise",
    "detect_benchmark",
    "find_benchmark",
    "resolve_benchmark",
]
