"""`plaudit compare`: models and labelled data in, who is better and where out."""

from __future__ import annotations

from typing import Any

from plaudit.cli import options as take
from plaudit.cli.progress import ELSEWHERE, say, say_notes


def compare(
    models: list[str],
    /,
    *,
    out: take.ReportFolder,
    limit: take.Limit = None,
    seed: int = 0,
    asked: take.Model = take.MODEL,
    rows: take.Rows = take.ROWS,
) -> dict[str, Any]:
    """Compare two reward models or more on the same labelled data: MODEL MODEL... DATA...

    Differences are paired by prompt, with intervals and McNemar's test, by subset too, with the texts on which the
    models differ most. NAME=MODEL and NAME=DATA give names. Killed at any moment, the same command goes on where it
    was; models and data that were scored before are not scored again.

    For example:

        plaudit compare old/model new/model test.jsonl --out versus

    Parameters
    ----------
    models
        Two folders or names of models at least, then data: files, folders, globs, `-`, any URL, hub:owner/name, or a
        benchmark.
    seed
        Of what is drawn: rows and intervals.
    """
    from plaudit.cli.evalsheet import Follow, show_comparison
    from plaudit.compare import CompareSettings, split_words
    from plaudit.compare import compare as measure
    from plaudit.sets import Wanted

    named, data = split_words(models)
    wanted = Wanted(reading=rows.settings(), limit=limit, seed=seed)
    settings = CompareSettings(
        models=named, data=data, out=out.expanduser(), wanted=wanted, asking=asked.settings(), seed=seed
    )
    with Follow() as follow:
        report = measure(settings, say=say, watch=follow.watch_model)
    if report is None:
        return ELSEWHERE  # another process of the same launch has the report
    say_notes(report["notes"])
    show_comparison(report, settings.out)
    return report
