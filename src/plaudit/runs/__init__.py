"""The run folder: everything a run was told, found out and made, in plain files that people and scripts can read.

Stands on `config`; no torch. RUN holds

    config.yaml        every setting with its origin        environment.json   versions, command, machine, data
    metrics.jsonl      one line an event, append-only       curves.png         those lines, drawn
    report.json        the final numbers                    checkpoints/       to go on from
    model/             the proven checkpoint                seen.npz           hashes of what was trained on

Invariant: one process at a time writes a run; a folder with something in it is never begun anew; and a run that goes on
is the same run, or a sentence names what is not the same.
"""

from __future__ import annotations

from plaudit.runs.environment import read_git, read_versions
from plaudit.runs.folder import RunFolder, open_run, read_saved
from plaudit.runs.metrics import MetricLog, read_metrics

__all__ = [
    "MetricLog",
    "RunFolder",
    "open_run",
    "read_git",
    "read_metrics",
    "read_saved",
    "read_versions",
]
