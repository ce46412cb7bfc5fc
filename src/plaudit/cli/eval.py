"""`plaudit eval`: a model and labelled data in, what can be said of the model out."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli import options as take
from plaudit.cli.progress import ELSEWHERE, say, say_notes

Reference = Annotated[str | None, Parameter(metavar="DATA", help="Older data: has the world moved away from them?")]
Against = Annotated[
    list[str] | None, Parameter(metavar="DATA", help="Training data: what of DATA was in it? May come again.")
]


def eval(
    model: str,
    data: list[str],
    /,
    *,
    out: take.ReportFolder,
    no_probes: bool = False,
    calibrate: bool = False,
    fit_length: bool = False,
    reference: Reference = None,
    against: Against = None,
    limit: take.Limit = None,
    seed: int = 0,
    asked: take.Model = take.MODEL,
    rows: take.Rows = take.ROWS,
) -> dict[str, Any]:
    """Measure a reward model on labelled DATA or public benchmarks: accuracy with intervals and beside what guessing
    would get, calibration, length, style, probes.

    OUT gains report.html, report.json and the scored rows. Killed at any moment, the same command goes on where it was;
    asked again with other options, it scores nothing twice.

    For example:

        plaudit eval run/model test.jsonl --out report

        plaudit eval run/model llmbar=LLMBar/Dataset news.jsonl --out report

        plaudit eval run/model this-month.jsonl --reference last-month.jsonl --out drift

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2.
    data
        Files, folders, globs, `-`, any URL, hub:owner/name, or a benchmark; NAME=DATA gives a set a name.
    no_probes
        Leave out the probes: answers edited in ways whose right effect is known.
    calibrate
        Store the fitted temperature in the model's folder: gaps of scores become probabilities.
    fit_length
        Store in the model's folder what length is worth to it, for scores without that.
    seed
        Of what is drawn: rows, intervals, probes.
    """
    from plaudit.cli.evalsheet import Follow, show_evaluation
    from plaudit.evaluate import EvalSettings, evaluate
    from plaudit.sets import Wanted

    wanted = Wanted(reading=rows.settings(), limit=limit, seed=seed)
    settings = EvalSettings(
        model=model, data=tuple(data), out=out.expanduser(), wanted=wanted, asking=asked.settings(), seed=seed,
        reference=reference, against=tuple(against or ()), probes=not no_probes, fit_length=fit_length,
        calibrate=calibrate,
    )  # fmt: skip
    with Follow() as follow:
        report = evaluate(settings, say=say, watch=follow.watch, stage=follow.stage)
    if report is None:
        return ELSEWHERE  # another process of the same launch has the report
    say_notes(report["notes"])
    show_evaluation(report, settings.out)
    return report
